"""Semi-NMF, Z ≈ U V with U free and V ≥ 0, by multiplicative updates.

Ding, Li and Jordan, "Convex and Semi-Nonnegative Matrix Factorizations", IEEE TPAMI 32 (2010), section 3.
scikit-learn has the NMF of non-negative data only. States are samples here: values [N, D] ≈ V [N, K] · U [K, D].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..progress import tracked
from ..states.store import Float32, Int64

__all__ = ["Factors", "factorise"]

Float64 = npt.NDArray[np.float64]

_OFF_CLUSTER = 0.2  # Ding et al.: the indicator of a K-Means start plus 0.2, since a zero would stay one for ever


class Factors(NamedTuple):
    """concepts U: float64 [K, D]. coefficients V ≥ 0: float64 [N, K]. errors: ‖Z - V U‖², first and after each step."""

    concepts: Float64
    coefficients: Float64
    errors: tuple[float, ...]


def factorise(
    values: Float32, clusters: Int64, k: int, *, tolerance: float = 1e-6, most: int = 500, progress: bool = False
) -> Factors:
    """Semi-NMF of values [N, D] into k concepts, begun at a partition.

    clusters: int64 [N], the K-Means cluster of each state. Ends when a step lowers the error by less than `tolerance`
    of ‖Z‖², or after `most` steps; the error never grows.
    """
    z = values.astype(np.float64)
    total = float(np.square(z).sum())
    v = np.full((len(z), k), _OFF_CLUSTER)
    v[np.arange(len(z)), clusters] += 1
    u = _best_concepts(z, v)
    errors = [_error(z, v, u)]
    for _ in tracked("semi-nmf", range(most), most, unit="step", show=progress):
        v = _next_coefficients(z, v, u)
        u = _best_concepts(z, v)
        errors.append(_error(z, v, u))
        if errors[-2] - errors[-1] <= tolerance * total:
            break
    return Factors(u, v, tuple(errors))


def _best_concepts(z: Float64, v: Float64) -> Float64:
    """The U that minimises ‖Z - V U‖ (a pseudo-inverse: two concepts may share their samples)."""
    best: Float64 = np.linalg.pinv(v.T @ v, hermitian=True) @ (v.T @ z)
    return best


def _next_coefficients(z: Float64, v: Float64, u: Float64) -> Float64:
    cross, gram = z @ u.T, u @ u.T
    pull = np.maximum(cross, 0) + v @ np.maximum(-gram, 0)
    push = np.maximum(-cross, 0) + v @ np.maximum(gram, 0)
    # Where next to nothing holds a coefficient back, its step is cut short: it still goes the right way.
    limits = np.finfo(np.float64)
    least = max(limits.eps * max(pull.max(), push.max()), limits.tiny)
    better: Float64 = v * np.sqrt(pull / np.maximum(push, least))
    return better


def _error(z: Float64, v: Float64, u: Float64) -> float:
    return float(np.square(z - v @ u).sum())
