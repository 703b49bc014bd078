"""Streams and centroids that have something large in common, as massive activations make it, and exact choices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

SIZE = 4096


class Data(NamedTuple):
    """h: float32 [N, D]. centroids: float32 [K, D]."""

    h: Float32
    centroids: Float32


def data(common: npt.ArrayLike, *, rows: int = 120, concepts: int = 20, seed: int = 0, size: int = SIZE) -> Data:
    """Rows around centroids of unit spread, all moved by `common`: [D], or [K, D] where concepts differ in it."""
    rng = np.random.default_rng(seed)
    centroids = rng.standard_normal((concepts, size)) / 4 + np.broadcast_to(common, (concepts, size))
    drawn = rng.integers(0, concepts, rows)
    h = centroids[drawn] + rng.standard_normal((rows, size)) * 2
    # Moved onto the border of two of them, give or take: what a coarse arithmetic gets wrong first.
    one, other = centroids[drawn], centroids[(drawn + 2) % concepts]
    between = other - one
    leads = np.einsum("nd,nd->n", h - (one + other) / 2, between)
    moved = (rng.uniform(-0.5, 0.5, rows) - leads) / np.square(between).sum(axis=1)
    h[::2] += (moved[:, None] * between)[::2]
    return Data(h.astype(np.float32), centroids.astype(np.float32))


def one_coordinate(value: float, size: int = SIZE) -> npt.NDArray[np.float64]:
    common = np.zeros(size)
    common[size // 3] = value
    return common


def kinds() -> Iterator[tuple[str, Data]]:
    """By name. Every second concept of the last ones is far from the others, so that no one centre serves all."""
    rng = np.random.default_rng(7)
    yield "nothing in common", data(0.0)
    yield "one coordinate of 3000", data(one_coordinate(3000))
    yield "one coordinate of -20000", data(one_coordinate(-20000))
    yield "every coordinate of about 100", data(rng.normal(100, 10, SIZE))
    yield "one concept apart", data(np.where(np.arange(20)[:, None] == 0, one_coordinate(3000), 0))
    yield "two families", data(np.where(np.arange(20)[:, None] % 2, one_coordinate(3000), -one_coordinate(3000)))


def exact(h: Float32, centroids: Float32) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The nearest centroid of each row by squared distances, in more than float64 where the machine has it, and by how
    much the next one missed being it (half the difference of the two)."""
    wide = h.astype(np.longdouble)
    halves = np.stack([np.square(wide - c.astype(np.longdouble)).sum(axis=1) for c in centroids], axis=1) / 2
    first, second = np.sort(halves, axis=1)[:, :2].T
    return halves.argmin(axis=1), (second - first).astype(np.float64)
