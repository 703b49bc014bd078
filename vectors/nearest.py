"""Which centroid is the nearest, and how far it is: the one place of this arithmetic.

    score_k = h·c_k − ½‖c_k‖²     the nearest centroid has the highest score; the lowest index wins a tie
    distance                      ‖h − c_k‖, or 1 − cos(h, c_k), measured from the stored h and c_k, never centred

The parts that all centroids and h have in common cancel in a difference of two scores. In float32 what is left of them
decides instead: with one coordinate at 3000, as massive activations have it, a tenth of all choices. So everything is
computed in float64, which holds the product of two float32 numbers exactly: a choice can only differ from the exact one
where two scores agree to about 1e-15 ‖h‖‖c_k‖.

The operator computes the same in its own languages (plugin/model: op_cpu.cpp, triton_add.py), from the float32 numbers
of the stream and of the table, and from `half_squares`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from .arrays import Float32, Float64, Int64

__all__ = ["Metric", "distances", "half_squares", "nearest", "scores"]

Metric = Literal["euclidean", "cosine"]

_BLOCK = 1 << 22
"""Numbers of a float64 copy that are in memory at a time: 32 MiB."""


def half_squares(centroids: Float32) -> Float64:
    """½‖c_k‖² of centroids [K, D], float64 [K]."""
    wide = centroids.astype(np.float64)
    halves: Float64 = np.einsum("kd,kd->k", wide, wide) / 2
    return halves


def scores(h: Float32, centroids: Float32) -> Float64:
    """h·c_k − ½‖c_k‖² of each row of h [N, D] and each of centroids [K, D], float64 [N, K].

    Comparable for one row only: subtract ½‖h‖² to compare rows, which makes it −½‖h − c_k‖².
    """
    found = np.empty((len(h), len(centroids)))
    wide, halves = centroids.astype(np.float64).T, half_squares(centroids)
    step = max(1, _BLOCK // h.shape[1])
    for start in range(0, len(h), step):
        found[start : start + step] = h[start : start + step].astype(np.float64) @ wide - halves
    return found


def nearest(h: Float32, centroids: Float32) -> Int64:
    """For each row of h [N, D] the index of its nearest centroid, int64 [N]; the lowest index wins a tie."""
    found: Int64 = np.argmax(scores(h, centroids), axis=1).astype(np.int64)
    return found


def distances(h: Float32, centroids: Float32, metric: Metric = "euclidean") -> Float64:
    """The distance of each row of h [N, D] from the same row of centroids [N, D], float64 [N].

    The cosine distance, 1 − cos, is that of the angle at the origin. It is infinite where one of the two is zero, so
    that such a row is inside no limit.
    """
    one, other = h.astype(np.float64), centroids.astype(np.float64)
    if metric == "euclidean":
        return _lengths(one - other)
    lengths = np.sqrt(np.square(one).sum(axis=1) * np.square(other).sum(axis=1))
    dots = (one * other).sum(axis=1)
    apart: npt.NDArray[np.float64] = np.where(lengths > 0, 1 - dots / np.where(lengths > 0, lengths, 1), np.inf)
    return apart


def _lengths(rows: Float64) -> Float64:
    lengths: Float64 = np.sqrt(np.square(rows).sum(axis=1))
    return lengths
