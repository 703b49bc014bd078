"""The self-check at start: in the very graph that will serve, every armed layer adds exactly what its table says.

For each armed layer a dummy batch runs twice: eagerly, where a hook adds a vector to what the layer returns, and in the
serving graph, where the layer's own table adds the same vector. Both must end in the same states, but for what graphs
and eager code differ by anyway. An addition that is lost (to a stale compile cache, a CUDA graph, or a class that
something else put over ours), that lands in another place, in part, twice, or on another token of the batch, ends in
others. The vector is as long as the stream is there, so that no norm hides its length, and acts on every second token.
The layers are tried one by one in a small batch, and together in batches of other sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import StartupError
from .dummy import DummyRuns
from .forms import add, parts
from .kinds import Kinds, check_finite, distance, hooked, random_vector
from .tables import SteeringTables

__all__ = ["check_layers_add"]

Vectors = Mapping[int, torch.Tensor]


def check_layers_add(runs: DummyRuns, tables: SteeringTables, layers: Mapping[int, nn.Module], kinds: Kinds) -> None:
    """Run the probe for every armed layer of this worker.

    Args:
        layers: the modules of the armed layers by their numbers.

    Raises:
        StartupError: naming the layer that does not add, or not exactly.
    """
    dtype = runs.dtype
    vectors = {
        number: random_vector(number, table.rows.shape[1], kinds.size[number] or 1.0).to(table.rows)
        for number, table in tables.layers.items()
    }
    first, *others = dict.fromkeys(runs.sizes)
    with tables.probing():
        plain = _Plain.of(runs, first, dtype)
        if plain is None:  # a pipeline rank that hands its states on
            return
        for number, vector in vectors.items():
            plain.compare(*_both(runs, first, tables, layers, {number: vector}), f"layer {number}")
        for size in others:
            plain = _Plain.of(runs, size, dtype)
            assert plain is not None
            plain.compare(*_both(runs, size, tables, layers, vectors), f"layer {', '.join(map(str, vectors))}")


class _Plain:
    """The last states of a batch to which nothing is added, and how far they move by themselves."""

    def __init__(self, eager: torch.Tensor, serving: torch.Tensor, noise: float, dtype: torch.dtype) -> None:
        self._eager, self._serving, self._dtype = eager, serving, dtype
        self._noise = noise
        self._apart = distance(eager, serving)

    @classmethod
    def of(cls, runs: DummyRuns, tokens: int, dtype: torch.dtype) -> _Plain | None:
        serving, again, eager = runs.serving(tokens), runs.serving(tokens), runs.eager(tokens)
        if serving is None or again is None or eager is None:
            return None
        check_finite(serving)
        return cls(eager, serving, distance(serving, again), dtype)

    def compare(self, eager: torch.Tensor, serving: torch.Tensor, name: str) -> None:
        effect, moved, off = (
            distance(self._eager, eager),
            distance(self._serving, serving),
            distance(eager, serving),
        )
        # Half of the digits of the model's dtype, where the two differ by less without an addition.
        allowed = max(4 * self._apart, 10 * self._noise, torch.finfo(self._dtype).eps ** 0.5 * effect)
        if not moved > allowed:
            raise StartupError(
                f"{name} is armed and adds nothing (the last states moved by {moved:g} where they should move by "
                f"{effect:g}; by themselves they move by {self._noise:g}), so steered requests would be served "
                "unsteered. Clear vLLM's compile cache (VLLM_CACHE_ROOT) and see what else changes the model's classes"
            )
        if not (off <= allowed and allowed < effect / 2):
            raise StartupError(
                f"{name} is armed, and what it adds in the serving graph is not what was to be added (the last states "
                f"are {off:g} away from those of eager code, {self._apart:g} without an addition, whose effect is "
                f"{effect:g}). Clear vLLM's compile cache (VLLM_CACHE_ROOT), try --enforce-eager, or start without "
                "profiles to serve the model unsteered"
            )


def _both(
    runs: DummyRuns, tokens: int, tables: SteeringTables, layers: Mapping[int, nn.Module], vectors: Vectors
) -> tuple[torch.Tensor, torch.Tensor]:
    """The last states of a batch to which vectors are added, by hooks in eager code and by tables in the graph."""
    with hooked({number: layers[number] for number in vectors}, lambda number: _adds(vectors[number])):
        eager = runs.eager(tokens)
    for number, vector in vectors.items():
        tables.layers[number].probe(tables.probe_slot, vector)
    try:
        serving = runs.serving(tokens)
    finally:
        for number in vectors:
            tables.layers[number].probe(tables.probe_slot, None)
    assert eager is not None
    assert serving is not None
    return eager, serving


def _adds(vector: torch.Tensor) -> Any:
    def hook(layer: nn.Module, args: Any, out: Any) -> Any:
        found = parts(out)
        assert found is not None
        delta = torch.zeros_like(found[0])
        delta[::2] = vector.to(delta)
        return add(out, delta)

    return hook
