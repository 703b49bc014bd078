"""Blocks of memory of their own for dummy requests, in models whose layers keep states.

All dummy requests of vLLM have block 0 for every layer. Layers of a state-space model write their states there even in
a dummy batch, and layers of attention read the same bytes as keys and values. Then a last digit more or less in a state
is a key of any size, and no two runs could be compared.

Leans on vllm/v1/worker: MultiGroupBlockTable of model runner V1, whose first rows a dummy batch reads, and
BlockTables.get_dummy_block_tables of V2; and on vllm/model_executor/layers/mamba/abstract.py: MambaBase.kv_cache (0.29
to 0.32).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["OwnBlocks"]


class OwnBlocks:
    """The last blocks of a runner: one per dummy request and group of layers, with zeros in what states keep there."""

    def __init__(self, runner: Any, requests: int) -> None:
        from vllm.model_executor.layers.mamba.abstract import MambaBase

        owners = runner.vllm_config.compilation_config.static_forward_context.values()
        self._with_states = [module for module in owners if isinstance(module, MambaBase)]
        self._runner = runner
        self.requests = requests
        """How many dummy requests a batch may have."""
        if self.needed:
            self._groups = len(runner.kv_cache_config.kv_cache_groups)
            blocks: int = runner.kv_cache_config.num_blocks
            self.requests = min(requests, (blocks - 1) // self._groups)
            self._first = blocks - self._groups * self.requests

    @property
    def needed(self) -> bool:
        """Whether any layer keeps states."""
        return bool(self._with_states)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Let dummy requests have these blocks, empty."""
        if not self.needed:
            yield
            return
        for module in self._with_states:  # what is kept would go on in the next run
            for state in module.kv_cache:
                state[self._first :].zero_()
        with self._in_v2() if self._runner.vllm_config.use_v2_model_runner else self._in_v1():
            yield

    def _of(self, group: int, request: int) -> int:
        return self._first + group * self.requests + request

    @contextmanager
    def _in_v1(self) -> Iterator[None]:
        tables = self._runner.input_batch.block_table
        for request in range(self.requests):
            tables.add_row(tuple([self._of(group, request)] for group in range(self._groups)), request)
        tables.commit_block_table(self.requests)
        try:
            yield
        finally:
            tables.clear()

    @contextmanager
    def _in_v2(self) -> Iterator[None]:
        tables = self._runner.block_tables
        usual = tables.get_dummy_block_tables

        def own(requests: int) -> tuple[torch.Tensor, ...]:
            found: tuple[torch.Tensor, ...] = usual(requests)
            for group, table in enumerate(found):
                filled = min(requests, self.requests)  # rows beyond are a graph's padding
                table[:filled, 0] = torch.arange(self._of(group, 0), self._of(group, filled), device=table.device)
            return found

        tables.get_dummy_block_tables = own
        try:
            yield
        finally:
            del tables.get_dummy_block_tables
            usual(self.requests)
