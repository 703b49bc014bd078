"""The self-check at start: that every armed layer really adds, in the very graph that will serve.

A dummy batch runs once without and once with a large vector at one layer, for each layer. Were the addition lost, to a
stale compile cache, a CUDA graph or a class that something else put over ours, both would end in the same states, and
every steered request would be served unsteered.

Leans on vllm/v1/worker: GPUModelRunner._dummy_run of both runners, which gives the last states (0.29 to 0.32).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ..errors import StartupError
from .tables import SteeringTables

__all__ = ["check_layers_add"]

_SIZE = 100.0  # of each entry: far above the stream's own, far below what float16 holds


def check_layers_add(runner: Any, tables: SteeringTables) -> None:
    """Run the probe for every armed layer of this worker.

    Raises:
        StartupError: naming the layer that adds nothing.
    """
    with tables.tokens.probing(tables.probe_slot):
        plain = _states(runner)
        if plain is None:  # a pipeline rank that hands its states on
            return
        noise = _distance(plain, _states(runner))
        if not math.isfinite(noise):
            raise StartupError(
                "the model's last states are not finite before anything is added to them, so that steering cannot be "
                "checked; look at the weights and at --dtype"
            )
        for layer, table in tables.layers.items():
            table.probe(tables.probe_slot, _SIZE)
            moved = _distance(plain, _states(runner))
            table.probe(tables.probe_slot, 0)
            if not moved > 10 * noise:
                raise StartupError(
                    f"layer {layer} is armed and adds nothing (the last states moved by {moved:g}, by themselves they "
                    f"move by {noise:g}), so steered requests would be served unsteered. Clear vLLM's compile cache "
                    "(VLLM_CACHE_ROOT) and see what else changes the model's classes"
                )


def _states(runner: Any) -> torch.Tensor | None:
    # Without attention its outputs would be whatever lies in memory.
    states, _ = runner._dummy_run(1, force_attention=True)
    return None if states is None else states.float().clone()


def _distance(one: torch.Tensor, other: torch.Tensor | None) -> float:
    assert other is not None
    return float((one - other).abs().max())
