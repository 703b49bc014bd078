"""How strongly a state activates each concept, one function per kind of dictionary (docs/method.md §2).

Each takes states float32 [N, D] and centroids float32 [K, D] and gives [N, K], nearness in float64 and all others in
float32. `.methods` says which method uses which.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from trimtab.vectors.nearest import half_squares, scores

__all__ = ["Activation", "coefficients", "cosine", "nearness", "projection"]

Float32 = npt.NDArray[np.float32]
Activation = Callable[[Float32, Float32], npt.NDArray[np.floating]]


def projection(states: Float32, centroids: Float32) -> Float32:
    """h·u_k."""
    projected: Float32 = states @ centroids.T
    return projected


def nearness(states: Float32, centroids: Float32) -> npt.NDArray[np.float64]:
    """-½‖h - c_k‖²: the larger, the nearer the centre."""
    near: npt.NDArray[np.float64] = scores(states, centroids) - half_squares(states)[:, None]
    return near


def cosine(states: Float32, centroids: Float32) -> Float32:
    """cos(h, u_k); 0 where one of the two is zero."""
    return projection(_unit(states), _unit(centroids))


def coefficients(states: Float32, centroids: Float32) -> Float32:
    """The v ≥ 0 that minimises ‖h - U v‖."""
    # ‖h - U v‖ and ‖Qᵀh - R v‖ have the same minimum where U = Q R, and the latter has at most K rows instead of D.
    q, r = np.linalg.qr(centroids.astype(np.float64).T)
    return np.array([nnls(r, one)[0] for one in states.astype(np.float64) @ q], np.float32)


def _unit(states: Float32) -> Float32:
    norms = np.linalg.norm(states, axis=1, keepdims=True)
    unit: Float32 = states / np.where(norms == 0, np.float32(1), norms)
    return unit
