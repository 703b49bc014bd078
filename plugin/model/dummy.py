"""Dummy batches through the model of a worker: in the graph that will serve, or layer by layer without any graph.

Leans on vllm/v1/worker: GPUModelRunner._dummy_run of both runners, which gives the last states; without a graph model
runner V1 is told so by an argument, and V2 by its CudaGraphManager, as before it has captured any. Leans on
vllm/compilation/decorators.py: support_torch_compile, whose classes ask `do_not_compile` at each call (0.29 to 0.32).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .blocks import OwnBlocks

__all__ = ["DummyRuns"]

_SEED = 0


class DummyRuns:
    """Batches of dummy tokens, the same at each call, which write no KV cache."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        config = runner.vllm_config
        self._is_v2 = config.use_v2_model_runner
        self.dtype: torch.dtype = config.model_config.dtype
        self._device = torch.device(config.device_config.device_type)
        sizes = _sizes(config)
        most = config.scheduler_config.max_num_seqs
        self._blocks = OwnBlocks(runner, min(max(sizes), most))
        self.sizes = sizes if not self._blocks.needed else tuple(min(size, self._blocks.requests) for size in sizes)
        """Tokens of the batches that are worth a try: one, a few that a graph pads, more than any graph holds."""

    def serving(self, tokens: int) -> torch.Tensor | None:
        """The last states in the graph that will serve, float32 [tokens, D]; None where this rank has none."""
        return self._run(tokens)

    def eager(self, tokens: int) -> torch.Tensor | None:
        """The same without any graph, so that hooks on layers are called."""
        with self._without_graphs():
            if self._is_v2:
                return self._run(tokens)
            from vllm.config import CUDAGraphMode

            return self._run(tokens, cudagraph_runtime_mode=CUDAGraphMode.NONE)

    def _run(self, tokens: int, **how: Any) -> torch.Tensor | None:
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices), self._blocks.taken():
            torch.manual_seed(_SEED)
            # Without attention its outputs would be whatever lies in memory; embeddings of zeros would tell little.
            states, _ = self._runner._dummy_run(tokens, force_attention=True, randomize_inputs=True, **how)
            return states[:tokens].float().clone() if isinstance(states, torch.Tensor) else None

    @contextmanager
    def _without_graphs(self) -> Iterator[None]:
        compiled = [module for module in self._runner.get_model().modules() if hasattr(module, "do_not_compile")]
        before = [module.do_not_compile for module in compiled]
        manager: Any = self._runner.cudagraph_manager if self._is_v2 else None
        captured = manager is not None and manager._graphs_captured
        for module in compiled:
            module.do_not_compile = True
        if captured:
            manager._graphs_captured = False
        try:
            yield
        finally:
            for module, was in zip(compiled, before, strict=True):
                module.do_not_compile = was
            if captured:
                manager._graphs_captured = True


def _sizes(config: Any) -> tuple[int, ...]:
    largest = config.compilation_config.max_cudagraph_capture_size or 0
    wished = (3, 1, largest + 1 if largest and config.device_config.device_type == "cuda" else 17)
    return tuple(min(size, config.scheduler_config.max_num_batched_tokens) for size in wished)
