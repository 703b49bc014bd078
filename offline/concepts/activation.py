"""How strongly a row of the residual stream activates each concept (docs/method.md §2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from trimtab.vectors import ConceptDictionary
from trimtab.vectors.arrays import finite_float32
from trimtab.vectors.concepts import Method

from ..errors import SettingError

__all__ = ["NEAREST", "activations", "strongest"]

NEAREST: frozenset[Method] = frozenset({"kmeans", "mini-batch-kmeans", "class-means"})
"""The methods whose activation is nearness to a centre: what a gate computes at serving time."""

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def activations(dictionary: ConceptDictionary, values: npt.ArrayLike) -> Float32:
    """float32 [N, K]: the activation of each concept by each row of `values` [N, D].

    kmeans, mini-batch-kmeans, class-means   h·c_k - ½‖c_k‖²: the larger, the nearer, for one and the same h
    semi-nmf                                 the v ≥ 0 that minimises ‖h - U v‖
    pca                                      the projection h·u_k
    simple                                   the cosine of h and u_k

    Raises:
        VectorError: values that are not a finite [N, D]; SettingError: another D than the dictionary's.
    """
    rows = finite_float32(values, 2, "values")
    size = dictionary.centroids.shape[1]
    if rows.shape[1] != size:
        raise SettingError(f"rows of size {rows.shape[1]} were given to a dictionary of size {size}; use one model's")
    return _ACTIVATIONS[dictionary.method](rows, dictionary.centroids)


def strongest(dictionary: ConceptDictionary, values: npt.ArrayLike) -> Int64:
    """For each row of `values` [N, D] the concept that it activates most, int64 [N]; the lowest index wins a tie.

    Where the activation is nearness, this is what serving computes (`ConceptDictionary.nearest`).

    Raises:
        VectorError, SettingError: as `activations`.
    """
    found: Int64 = np.argmax(activations(dictionary, values), axis=1).astype(np.int64)
    return found


def _projection(rows: Float32, centroids: Float32) -> Float32:
    projected: Float32 = rows @ centroids.T
    return projected


def _nearness(rows: Float32, centroids: Float32) -> Float32:
    half_squares = np.float32(0.5) * np.square(centroids).sum(axis=1, dtype=np.float32)
    scores: Float32 = rows @ centroids.T - half_squares
    return scores


def _cosine(rows: Float32, centroids: Float32) -> Float32:
    return _projection(_unit(rows), _unit(centroids))


def _coefficients(rows: Float32, centroids: Float32) -> Float32:
    # ‖h - U v‖ and ‖Qᵀh - R v‖ have the same minimum where U = Q R, and the latter has at most K rows instead of D.
    q, r = np.linalg.qr(centroids.astype(np.float64).T)
    return np.array([nnls(r, one)[0] for one in rows.astype(np.float64) @ q], np.float32)


def _unit(rows: Float32) -> Float32:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Float32 = rows / np.where(norms == 0, np.float32(1), norms)
    return unit


_ACTIVATIONS: dict[Method, Callable[[Float32, Float32], Float32]] = {
    "kmeans": _nearness,
    "mini-batch-kmeans": _nearness,
    "class-means": _nearness,
    "semi-nmf": _coefficients,
    "pca": _projection,
    "simple": _cosine,
}
