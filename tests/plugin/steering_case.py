"""Arguments of the op, made at random, and what it has to answer, told token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import inf, sqrt
from typing import Any

import numpy as np
import torch

from trimtab.plugin.model import op_cpu
from trimtab.plugin.model.op import COSINE, EUCLIDEAN, NOT_HERE, steer
from trimtab.plugin.steps.batch import ALPHA, DECISION, SLOT
from trimtab.vectors.nearest import half_squares

op_cpu.load()

PARTS = 4


@dataclass(frozen=True)
class Case:
    """The op's arguments, in its order."""

    hidden: torch.Tensor
    residual: torch.Tensor | None
    summed: torch.Tensor
    tokens: torch.Tensor
    slots: torch.Tensor
    limits: torch.Tensor
    bias: torch.Tensor
    rows: torch.Tensor
    decided: torch.Tensor
    lost: torch.Tensor
    counts: torch.Tensor
    opens: bool = True

    def tensors(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__dataclass_fields__ if name != "opens")

    def stream(self) -> torch.Tensor:
        """[T, D], in float32."""
        if self.residual is None or not self.summed:
            return self.hidden.float()
        return self.hidden.float() + self.residual.float()

    def widened(self) -> Case:
        """The same stream in float32."""
        residual = None if self.residual is None else self.residual.float()
        return replace(self, hidden=self.hidden.float(), residual=residual)

    def of_tokens(self, order: Sequence[int]) -> Case:
        """The same for some of its tokens, in another order."""
        at = torch.tensor(list(order), dtype=torch.int64)
        residual = None if self.residual is None else self.residual[at]
        return replace(self, hidden=self.hidden[at], residual=residual, tokens=self.tokens[at], lost=self.lost[at])


@dataclass(frozen=True)
class Slot:
    """count: 0 coarse, K fine, None for a profile that is not at this layer.

    limits: squared if Euclidean; of the centroids in turn, over and over.
    """

    count: int | None = 0
    metric: int = 0
    limits: tuple[float, ...] = (0.0,)


Answer = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""The delta, and `decided` and `lost` afterwards."""


def run(case: Case) -> Answer:
    answer, _ = run_counting(case)
    return answer


def run_counting(case: Case) -> tuple[Answer, torch.Tensor]:
    """The answer, and `counts` afterwards."""
    decided, lost, counts = case.decided.clone(), case.lost.clone(), case.counts.clone()
    copy = replace(case, decided=decided, lost=lost, counts=counts)
    return (steer(*copy.tensors(), opens=case.opens), decided, lost), counts


def halves(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.integers(-4, 5, shape).astype(np.float32) / 2)


SUM, ALONE, DEAD = FORMS = ("a sum", "hidden alone", "a dead residual")
"""What a layer may return. A dead residual is no part of the stream: it holds what no sum may ever see."""


def make_case(
    seed: int,
    *,
    tokens: int,
    size: int,
    slots: Sequence[Slot],
    dtype: torch.dtype,
    parts: int = PARTS,
    spare: int = 3,
    form: str = SUM,
) -> Case:
    """Streams and centroids are small halves, so that every score is exact in float32 and ties are real ties.

    slots: 1, 2, …; slot 0 and row 0 hold what must not be added. Vectors and alphas are any numbers. A token's parts
    decide anew at every token, once and now (at a place that no other has), or read what was decided before.
    """
    rng = np.random.default_rng(seed)
    first, described, rows = 1, [(0, 1, 0)], [torch.full((1, size), 1e6)]
    bias = [torch.zeros(1, dtype=torch.float64)]
    limits = [torch.zeros(1, dtype=torch.float64)]
    for slot in slots:
        count = slot.count or 0
        described.append((NOT_HERE if slot.count is None else first, count, slot.metric))
        if slot.count is not None:
            centroids, n = halves(rng, count, size), max(count, 1)
            rows += [centroids, torch.from_numpy(rng.standard_normal((n, size)).astype(np.float32))]
            bias += [torch.from_numpy(half_squares(centroids.numpy())), torch.full((n,), 1e6, dtype=torch.float64)]
            limits += [torch.tensor([*islice(cycle(slot.limits), count), *[1e6] * n], dtype=torch.float64)]
            first += count + n
    acting = np.zeros((tokens + spare, PARTS), np.int32)
    acting[:, :parts] = rng.integers(0, 1 + len(slots), (tokens + spare, parts))
    place = 1 + np.arange(acting.size, dtype=np.int32).reshape(acting.shape)
    found = np.zeros((tokens + spare, 3, PARTS), np.int32)
    found[:, SLOT] = acting
    found[:, ALPHA] = rng.uniform(-2, 2, acting.shape).astype(np.float32).view(np.int32)
    found[:, DECISION] = place * rng.integers(-1, 2, acting.shape)
    hidden, residual = halves(rng, tokens, size).to(dtype), halves(rng, tokens, size).to(dtype)
    return Case(
        hidden=hidden,
        residual={SUM: residual, ALONE: None, DEAD: torch.full_like(residual, torch.nan)}[form],
        summed=torch.tensor([form != DEAD], dtype=torch.uint8),
        tokens=torch.from_numpy(found),
        slots=torch.tensor(described, dtype=torch.int32),
        limits=torch.cat(limits),
        bias=torch.cat(bias),
        rows=torch.cat(rows),
        # Of places that nobody has decided at, too: they hold what a former holder left.
        decided=torch.from_numpy(rng.integers(NOT_HERE, first, 1 + acting.size).astype(np.int32)),
        lost=torch.from_numpy(rng.integers(0, 2, tokens).astype(np.uint8)),  # of a former step
        counts=torch.from_numpy(rng.integers(0, 1 << 40, (2, first))),  # of former steps
    )


def expected(case: Case) -> Answer:
    """Nearest by squared distance in float64, the lowest index of equals; parts summed in float32, cast once, and left
    out and marked where that is not finite."""
    delta, decided, lost = torch.zeros_like(case.hidden), case.decided.clone(), case.lost.clone()
    if case.opens:
        lost[: len(delta)] = 0
    h = case.stream().double()
    for token in range(len(delta)):
        total = np.zeros(h.shape[1], np.float32)
        for part in range(PARTS):
            slot, alpha, decision = case.tokens[token, :, part].tolist()
            row = _row(case, slot, decision, h[token], decided)
            if row != NOT_HERE:
                total += np.int32(alpha).view(np.float32) * case.rows[row].numpy()
        rounded = torch.from_numpy(total).to(delta.dtype)
        if rounded.isfinite().all():
            delta[token] = rounded
        else:
            lost[token] = 1
    return delta, decided, lost


def expected_counts(case: Case) -> torch.Tensor:
    """Each choice of a gate, and each that is taken over from `decided`, token by token and part by part."""
    counts, decided, h = case.counts.clone(), case.decided.clone(), case.stream().double()
    for token in range(len(h)):
        for part in range(PARTS):
            slot, _, decision = case.tokens[token, :, part].tolist()
            first, count, _ = case.slots[slot].tolist()
            if slot and count:
                row = _row(case, slot, decision, h[token], decided)
                counts[int(decision > 0), first if row == NOT_HERE else row] += 1
    return counts


def _row(case: Case, slot: int, decision: int, h: torch.Tensor, decided: torch.Tensor) -> int:
    first, count, metric = case.slots[slot].tolist()
    if slot == 0 or count == 0:
        return NOT_HERE if slot == 0 else int(first)
    if decision > 0:
        return int(case.decided[decision])
    distances = [float((h - case.rows[first + k].double()).square().sum()) for k in range(count)]
    nearest = distances.index(min(distances))
    row = first + count + nearest if _inside(case, metric, h, first + nearest) else NOT_HERE
    if decision < 0:
        decided[-decision] = row
    return int(row)


def _inside(case: Case, metric: int, h: torch.Tensor, centroid: int) -> bool:
    c, limit = case.rows[centroid].double(), float(case.limits[centroid])
    if limit == inf:  # none, so that nothing is too far, a state of zeros included
        return True
    if metric == EUCLIDEAN:
        return float((h - c).square().sum()) <= limit
    if metric == COSINE:
        norms = sqrt(float(h.square().sum() * c.square().sum()))
        return norms > 0 and 1 - float(h @ c) / norms <= limit
    return True
