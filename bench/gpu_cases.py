"""Arguments of the op on a device, made at random, and what it has to answer, computed in float64 by torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from trimtab.plugin.model.fields import COSINE, EUCLIDEAN, NOT_HERE
from trimtab.vectors.asked import MOST_PROFILES

__all__ = ["Case", "Kind", "cases", "expected", "make", "refill"]

# As in steps/batch.py: [T, (slot, strength, decision), part].

_FIELDS = ("hidden", "residual", "summed", "entries", "slots", "limits", "bias", "rows", "decided", "lost", "counts")


@dataclass(frozen=True)
class Kind:
    """What a case is made of.

    concepts: of the profiles, 0 for a coarse one. metric: of their limits, 0 for none. common: how large a coordinate
    is that all states and centroids share, as massive activations make it. halves: small halves for numbers, so that
    ties are real ones. unsteered: the share of the parts that nothing acts on.
    """

    tokens: int
    size: int
    concepts: Sequence[int] = (0, 20)
    dtype: torch.dtype = torch.bfloat16
    metric: int = 0
    common: float = 0.0
    halves: bool = False
    strided: bool = False
    alone: bool = False
    unsteered: float = 0.3

    def __str__(self) -> str:
        named = [f"T {self.tokens}", f"D {self.size}", f"K {list(self.concepts)}", str(self.dtype)[6:]]
        flags = {"metric": self.metric, "common": self.common, "ties": self.halves, "strided": self.strided}
        return ", ".join([*named, *(f"{name} {value}" for name, value in flags.items() if value)])


@dataclass(frozen=True)
class Case:
    """The op's arguments, see `op.steer`."""

    hidden: torch.Tensor
    residual: torch.Tensor | None
    summed: torch.Tensor
    entries: torch.Tensor
    slots: torch.Tensor
    limits: torch.Tensor
    bias: torch.Tensor
    rows: torch.Tensor
    decided: torch.Tensor
    lost: torch.Tensor
    counts: torch.Tensor

    def arguments(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in _FIELDS)

    def cloned(self) -> Case:
        return replace(self, decided=self.decided.clone(), lost=self.lost.clone(), counts=self.counts.clone())


def make(kind: Kind, device: str, seed: int = 0) -> Case:
    random = torch.Generator(device).manual_seed(seed)

    def numbers(*shape: int) -> torch.Tensor:
        if kind.halves:
            return torch.randint(-4, 5, shape, generator=random, device=device) / 2
        return torch.randn(shape, generator=random, device=device)

    first, slots, rows, centroids = 1, [(0, 0, 0)], [torch.full((1, kind.size), 1e6, device=device)], []
    for count in kind.concepts:
        slots.append((first, count, kind.metric))
        block = numbers(count, kind.size)
        if count:
            block[:, 0] += kind.common
        rows += [block, numbers(max(count, 1), kind.size)]
        centroids.append(range(first, first + count))
        first += count + max(count, 1)
    table = torch.cat(rows)
    limits = torch.full((first,), torch.inf, dtype=torch.float64, device=device)
    if kind.metric:
        typical = 1.0 if kind.metric == COSINE else 3.0 * kind.size
        limits = typical * (0.5 + torch.rand(first, generator=random, device=device, dtype=torch.float64))
        if kind.common and kind.metric == COSINE:
            limits *= 3 * kind.size / kind.common**2
    hidden, residual = numbers(2, kind.tokens, kind.size)
    residual[:, 0] += kind.common
    hidden, residual = hidden.to(kind.dtype), residual.to(kind.dtype)
    if kind.strided:
        wide = torch.cat([hidden, residual], dim=1)
        hidden, residual = wide[:, : kind.size], wide[:, kind.size :]
    case = Case(
        hidden=hidden,
        residual=None if kind.alone else residual,
        summed=torch.ones(1, dtype=torch.uint8, device=device),
        entries=torch.zeros(kind.tokens, 3, MOST_PROFILES, dtype=torch.int32, device=device),
        slots=torch.tensor(slots, dtype=torch.int32, device=device),
        limits=limits,
        bias=table.double().square().sum(dim=1) / 2,
        rows=table,
        decided=torch.zeros(1 + kind.tokens * MOST_PROFILES, dtype=torch.int32, device=device),
        lost=torch.ones(kind.tokens, dtype=torch.uint8, device=device),
        counts=torch.zeros(2, first, dtype=torch.int64, device=device),
    )
    refill(case, kind, seed)
    return case


def refill(case: Case, kind: Kind, seed: int) -> None:
    """Other entries and decisions, in place: a third of the parts decides anew, a third once, a third did before."""
    random = torch.Generator("cpu").manual_seed(seed + 1)
    shape = (kind.tokens, MOST_PROFILES)
    slot = torch.randint(1, len(case.slots), shape, generator=random, dtype=torch.int32)
    slot *= torch.rand(shape, generator=random) >= kind.unsteered
    alpha = torch.rand(shape, generator=random) * 4 - 2
    place = torch.arange(1, 1 + slot.numel(), dtype=torch.int32).view(shape)
    decision = place * torch.randint(-1, 2, shape, generator=random, dtype=torch.int32)
    case.entries.copy_(torch.stack([slot, alpha.view(torch.int32), decision], dim=1))
    case.decided.copy_(
        torch.randint(NOT_HERE, len(case.rows), (len(case.decided),), generator=random, dtype=torch.int32)
    )


def expected(case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The delta, `decided`, `lost` and `counts` afterwards, and bool [T]: is a limit too near to be told in float64?"""
    h = case.hidden.float() if case.residual is None else case.hidden.float() + case.residual.float()
    h64, decided, counts = h.double(), case.decided.clone(), case.counts.clone()
    total = torch.zeros_like(h)
    near = torch.zeros(len(h), dtype=torch.bool, device=h.device)
    for part in range(MOST_PROFILES):
        slot, alpha, decision = case.entries[:, :, part].unbind(1)
        row = torch.full_like(slot, NOT_HERE)
        for number, (first, count, metric) in enumerate(case.slots.tolist()):
            asks = (slot == number).nonzero().flatten()
            if number == 0 or not len(asks):
                continue
            if count == 0:
                row[asks] = first
                continue
            c = case.rows[first : first + count].double()
            nearest = _nearest(h64[asks], c)
            chosen = (first + count + nearest).int()
            if metric:
                apart = _distance(h64[asks], c[nearest], metric)
                limit = case.limits[first + nearest]
                near[asks] |= (apart - limit).abs() <= 1e-11 * limit.abs()
                chosen = torch.where(apart <= limit, chosen, NOT_HERE)
            before = decision[asks] > 0
            row[asks] = torch.where(before, case.decided[decision[asks].clamp(min=0).long()], chosen)
            at = torch.where(row[asks] == NOT_HERE, first, row[asks]).long() + before * len(case.rows)
            counts.view(-1).index_add_(0, at, torch.ones_like(at))
            made = decision[asks] < 0
            decided[-decision[asks][made].long()] = chosen[made]
        scaled = alpha.contiguous().view(torch.float32)[:, None] * case.rows[row.clamp(min=0).long()]
        total += torch.where((row == NOT_HERE)[:, None], 0.0, scaled)
    delta = total.to(case.hidden.dtype)
    lost = ~delta.isfinite().all(dim=1)
    delta[lost] = 0
    return delta, decided, lost.to(torch.uint8), counts, near


def _nearest(h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The lowest index of the highest score, measured from the first centroid, in float64."""
    moved, from_it = h - c[0], c - c[0]
    scores = moved @ from_it.T - from_it.square().sum(dim=1) / 2
    highest = scores.max(dim=1, keepdim=True).values
    # Equal centroids have equal scores but for the order of a sum.
    slack = 1e-13 * moved.norm(dim=1, keepdim=True) * from_it.norm(dim=1).max()
    found: torch.Tensor = (scores >= highest - slack).int().argmax(dim=1)
    return found


def _distance(h: torch.Tensor, c: torch.Tensor, metric: int) -> torch.Tensor:
    if metric == EUCLIDEAN:
        return (h - c).square().sum(dim=1)
    squares = h.square().sum(dim=1) * c.square().sum(dim=1)
    return torch.where(squares > 0, 1 - (h * c).sum(dim=1) / squares.sqrt(), torch.inf)


def cases(small: bool = False) -> Iterator[Kind]:
    """Every law of the op's tests, at the sizes that are served. small: those that a machine without a GPU bears."""
    sizes = (192,) if small else (192, 896, 3584, 4096, 8192)
    dtypes = (torch.bfloat16, torch.float16, torch.float32)
    for size, dtype in itertools.product(sizes, dtypes):
        yield Kind(33, size, (0, 20, 64), dtype)
    for concepts in (1, 2, 7, 8, 9, 64, 256, 300):
        yield Kind(17, sizes[0], (concepts, 0), dtypes[0])
    for tokens in (1, 2, 16, 17) if small else (1, 2, 7, 16, 17, 64, 65, 200, 256, 512, 513, 2048, 8192):
        yield Kind(tokens, sizes[-1] // 2 if not small else 192, (64, 20), dtypes[0])
    for metric in (EUCLIDEAN, COSINE):
        yield Kind(64 if not small else 9, sizes[-1], (20, 5), metric=metric)
        yield Kind(64 if not small else 9, sizes[-1], (20, 5), dtype=torch.float32, metric=metric, common=3000.0)
    yield Kind(300 if not small else 12, 2, (40, 17), torch.float32, halves=True)
    yield Kind(300 if not small else 12, sizes[0], (40, 17), torch.float32, halves=True)
    for common in (100.0, 3000.0, -20000.0):
        yield Kind(64 if not small else 6, sizes[-1] // 2, (64, 20), torch.float32, common=common)
    yield Kind(40 if not small else 6, sizes[1 % len(sizes)], (9, 0), strided=True)
    yield Kind(40 if not small else 6, sizes[1 % len(sizes)], (9, 0), alone=True)
    yield Kind(256 if not small else 8, sizes[-1] // 2, tuple([20] * 30 + [0, 64]), dtypes[0])
