"""Arguments of the op, made at random, and what it has to answer, told token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Case:
    """The op's arguments, in its order."""

    hidden: torch.Tensor
    residual: torch.Tensor
    token_slot: torch.Tensor
    token_alpha: torch.Tensor
    start: torch.Tensor
    count: torch.Tensor
    centroids: torch.Tensor
    bias: torch.Tensor
    vectors: torch.Tensor

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def make_case(
    seed: int, *, tokens: int, size: int, counts: Sequence[int], dtype: torch.dtype, spare_tokens: int = 3
) -> Case:
    """Streams and centroids are small halves, so that every score is exact in float32 and ties are real ties.

    counts: rows of slots 1, 2, …; 1 is a coarse profile. Slot 0 and a slot without rows point at rows of others,
    which must not be added. Vectors and alphas are any numbers.
    """
    rng = np.random.default_rng(seed)
    slots, rows = 1 + len(counts), 1 + sum(counts)

    def halves(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.integers(-4, 5, shape).astype(np.float32) / 2)

    centroids = halves(rows, size)
    centroids[0] = 0
    vectors = torch.from_numpy(rng.standard_normal((rows, size)).astype(np.float32))
    vectors[0] = 0
    start = [rows - 1, *(min(1 + sum(counts[:index]), rows - 1) for index in range(len(counts)))]
    return Case(
        hidden=halves(tokens, size).to(dtype),
        residual=halves(tokens, size).to(dtype),
        token_slot=torch.from_numpy(rng.integers(0, slots, tokens + spare_tokens).astype(np.int32)),
        token_alpha=torch.from_numpy(rng.uniform(-2, 2, tokens + spare_tokens).astype(np.float32)),
        start=torch.tensor(start, dtype=torch.int32),
        count=torch.tensor([1, *counts], dtype=torch.int32),
        centroids=centroids,
        bias=centroids.square().sum(dim=1) / 2,
        vectors=vectors,
    )


def expected(case: Case) -> torch.Tensor:
    """Nearest by squared distance in float64, the lowest index of equals; alpha · v in float32, cast once."""
    delta = torch.zeros_like(case.residual)
    h = case.hidden.double() + case.residual.double()
    for token in range(len(delta)):
        slot = int(case.token_slot[token])
        first, n = int(case.start[slot]), int(case.count[slot])
        if slot == 0 or n == 0:
            continue
        distances = [float((h[token] - case.centroids[first + k].double()).square().sum()) for k in range(n)]
        added = case.token_alpha[token] * case.vectors[first + distances.index(min(distances))]
        delta[token] = added.to(delta.dtype)
    return delta
