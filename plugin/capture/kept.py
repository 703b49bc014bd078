"""The rows that requests want of this engine's steps: filled by the captured layers, kept by request until taken.

Before each step `step` says which token goes to which row of the layers' buffers, which the layers write; before the
next step, or when somebody takes, they are copied to host memory. On a GPU that copy is not waited for until the step
after, so that no step stands still for it.

A position is kept once, however often it is computed: a request that was preempted comes again from its start, and what
was kept the first time stays. A position that was never computed is an error when the rows are taken, never a hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from trimtab.vectors.errors import RequestError

from ..model.forms import ReadsStream
from ..requests.positions import Span
from ..steps.batch import Ints
from .op import copy_rows
from .request import ASKED_KEY

__all__ = ["KeptStates", "LayerBuffer", "Taken"]

Float32 = npt.NDArray[np.float32]
Taken = tuple[bytes, dict[str, bytes]]
"""Of one request: its positions, int64 [n], and its rows by layer, float32 [n, D]. Plain: it crosses processes."""


@dataclass
class _Kept:
    """What is kept of one request. Positions below `passed` have been computed, those in `spans` are kept."""

    key: str
    spans: Sequence[Span]
    passed: int = 0
    has_hole: bool = False
    runs: list[Span] = field(default_factory=list)
    rows: list[Float32] = field(default_factory=list)
    """[L, b - a, D] of each run a ≤ p < b, for the L captured layers."""

    def step(self, computed: int, scheduled: int) -> Iterator[Span]:
        """What is wanted of the positions computed ≤ p < computed + scheduled and not kept yet."""
        reached = computed + scheduled
        self.has_hole |= any(max(a, self.passed) < min(b, computed) for a, b in self.spans)
        start, self.passed = max(computed, self.passed), max(reached, self.passed)
        for a, b in self.spans:
            first, stop = max(a, start), min(b, reached)
            if first < stop:
                yield first, stop

    def take(self, layers: Iterable[int]) -> Taken:
        if self.has_hole:
            raise RequestError(f"rows of request {self.key} came from a cache and were not computed", param=ASKED_KEY)
        positions = [np.arange(a, b, dtype=np.int64) for a, b in self.runs]
        return (
            b"".join(run.tobytes() for run in positions),
            {str(layer): b"".join(run[at].tobytes() for run in self.rows) for at, layer in enumerate(layers)},
        )


@dataclass
class _Step:
    """The rows of one step on their way, float32 [L, R, D]. places: a request, its positions, and their first row."""

    places: list[tuple[_Kept, Span, int]]
    rows: torch.Tensor
    arrived: torch.cuda.Event | None


class Wanted(nn.Module):
    """What is wanted of this step, the same for all layers. row: int32 [tokens], -1 is unwanted."""

    row: torch.Tensor

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.register_buffer("row", torch.full((tokens,), -1, dtype=torch.int32), persistent=False)


class LayerBuffer(ReadsStream):
    """The buffer of a captured layer. rows: float32 [tokens + 1, D], the last one spare."""

    rows: torch.Tensor

    def __init__(self, tokens: int, hidden_size: int, wanted: Wanted) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(tokens + 1, hidden_size, dtype=torch.float32), persistent=False)
        self.wanted = wanted

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """Copy the wanted rows of the stream, whose parts these are, see `forms.parts`."""
        copy_rows(hidden, residual, self.summed, self.wanted.row, self.rows)


class KeptStates(nn.Module):
    """All captured layers of one model, and what is kept of their rows."""

    def __init__(self, layers: Iterable[int], tokens: int, hidden_size: int, keeps: bool = True) -> None:
        """keeps: False for the workers of a tensor-parallel group that would keep the same rows once more."""
        super().__init__()
        self.wanted = Wanted(tokens)
        self.layers = {layer: LayerBuffer(tokens, hidden_size, self.wanted) for layer in layers}
        self._keeps = keeps
        self._kept: dict[str, _Kept] = {}
        self._places: list[tuple[_Kept, Span, int]] = []
        self._used = 0
        self._moving: _Step | None = None

    def step(self, requests: Sequence[tuple[str, Mapping[str, Any] | None]], computed: Ints, scheduled: Ints) -> None:
        """Say what is wanted of the coming step, whose batch is final.

        requests: id and spans (see `capture_request.admit`; None captures nothing) in batch order. computed, scheduled:
        int [N], tokens of each request before and in this step.
        """
        self._fetch()
        if not self._keeps or not (self._used or any(wire for _, wire in requests)):
            return
        token_row = np.full(max(int(scheduled.sum()), self._used), -1, np.int32)
        row = first = 0
        for (name, wire), before, count in zip(requests, computed.tolist(), scheduled.tolist(), strict=True):
            for a, b in self._request(name, wire).step(before, count) if wire else ():
                token_row[first + a - before : first + b - before] = np.arange(row, row + b - a)
                self._places.append((self._kept[name], (a, b), row))
                row += b - a
            first += count
        self.wanted.row[: len(token_row)].copy_(torch.from_numpy(token_row))
        self._used = first if row else 0

    def take(self, keys: Iterable[str]) -> dict[str, Taken]:
        """The rows of requests by the id that their caller knows; nothing of them is kept any longer.

        Raises:
            RequestError: a position was never computed.
        """
        self._fetch()
        self._land()
        names = self._named(keys)
        return {kept.key: kept.take(self.layers) for kept in [self._kept.pop(name) for name in names]}

    def release(self, keys: Iterable[str]) -> None:
        """Keep nothing of these requests any longer, whether by their caller's id or by the engine's."""
        for name in self._named(keys):
            del self._kept[name]

    def kept(self) -> dict[str, int]:
        """Bytes of the rows that wait to be taken, by the id that the caller knows."""
        self._fetch()
        self._land()
        return {kept.key: sum(run.nbytes for run in kept.rows) for kept in self._kept.values()}

    def _named(self, keys: Iterable[str]) -> list[str]:
        wanted = set(keys)
        return [name for name, kept in self._kept.items() if not wanted.isdisjoint((name, kept.key))]

    def _request(self, name: str, wire: Mapping[str, Any]) -> _Kept:
        if name not in self._kept:
            self._kept[name] = _Kept(wire["key"], wire["spans"])
        return self._kept[name]

    def _fetch(self) -> None:
        """Let the last step's rows leave the buffers."""
        self._land()
        if not self._places:
            return
        _, (a, b), row = self._places[-1]
        rows = torch.stack([module.rows[: row + b - a] for module in self.layers.values()])
        self._moving = _Step(self._places, rows.to("cpu", non_blocking=True), None)
        self._places = []
        if rows.is_cuda:
            self._moving.arrived = torch.cuda.Event()
            self._moving.arrived.record()

    def _land(self) -> None:
        """Give the rows that have arrived to their requests."""
        if self._moving is None:
            return
        if self._moving.arrived is not None:
            self._moving.arrived.synchronize()
        rows = self._moving.rows.numpy()
        for kept, (a, b), row in self._moving.places:
            kept.runs.append((a, b))
            kept.rows.append(rows[:, row : row + b - a].copy())  # what others want of the step goes when they go
        self._moving = None
