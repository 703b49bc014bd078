"""Which concept of one dictionary is which of another (docs/method.md §3)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import ot

from ..errors import SettingError

__all__ = ["cosines", "match_concepts", "unit"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def match_concepts(a: npt.ArrayLike, b: npt.ArrayLike) -> Int64:
    """For each of the concepts a [K, D] its match among b [L, D], int64 [K].

    Optimal transport (POT's `ot.emd`) with uniform marginals and the cost 1 - cos. Equal K make it the linear
    assignment: every concept of b is the match of one of a. With unequal K the mass of a concept may be spread; its
    match is where most of it goes, and of several such the nearest.

    Raises:
        SettingError: two dictionaries of different size D.
    """
    cost = 1 - cosines(a, b)
    k, other = cost.shape
    plan = np.asarray(ot.emd(np.full(k, 1 / k), np.full(other, 1 / other), cost))
    most = plan >= plan.max(axis=1, keepdims=True) - 1e-12
    found: Int64 = np.where(most, cost, np.inf).argmin(axis=1).astype(np.int64)
    return found


def cosines(a: npt.ArrayLike, b: npt.ArrayLike) -> Float64:
    """cos(a_i, b_j), float64 [K, L], of vectors a [K, D] and b [L, D]; 0 where one of them is 0.

    Raises:
        SettingError: vectors of different size D.
    """
    ours, theirs = unit(a), unit(b)
    if ours.shape[1] != theirs.shape[1]:
        raise SettingError(
            f"concepts of size {ours.shape[1]} and {theirs.shape[1]} cannot be compared; take both from models of "
            "one architecture and size"
        )
    found: Float64 = np.clip(ours @ theirs.T, -1, 1)
    return found


def unit(vectors: npt.ArrayLike) -> Float64:
    """Vectors [N, D] at length 1; a zero vector stays one."""
    array = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    found: Float64 = np.divide(array, norms, out=np.zeros_like(array), where=norms > 0)
    return found
