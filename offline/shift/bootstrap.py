"""Means and correlations with 95 % bootstrap intervals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from ..findings import Measured

__all__ = ["correlation", "mean_of"]

Float64 = npt.NDArray[np.float64]

RESAMPLES = 2000
FEWEST = 4
"""A correlation of fewer points than this says nothing."""


def mean_of(values: npt.ArrayLike, seed: int) -> Measured:
    """The mean of values [N], resampled over the N."""
    array = np.asarray(values, np.float64)
    means = array[_draws(len(array), seed)].mean(axis=1)
    return _measured(float(array.mean()), means, len(array))


def correlation(x: npt.ArrayLike, y: npt.ArrayLike, seed: int, *, ranks: bool = False) -> Measured | None:
    """Pearson's r of x [N] and y [N], or Spearman's of their ranks, which no single point can decide.

    Resampled over pairs; pairs with a nan are left out. None where fewer than four are left, or where one side does not
    vary.
    """
    pairs = np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)])
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    count = pairs.shape[1]
    if count < FEWEST or (np.ptp(pairs, axis=1) < 1e-12).any():
        return None
    of = _spearman if ranks else _pearson
    r = float(of(pairs[0][None], pairs[1][None])[0])
    draws = _draws(count, seed)
    resampled = of(pairs[0][draws], pairs[1][draws])
    return _measured(r, resampled[np.isfinite(resampled)], count)


def _draws(count: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))


def _pearson(x: Float64, y: Float64) -> Float64:
    """Row by row; nan where a row does not vary (a resample may draw one point again and again)."""
    x, y = (side - side.mean(axis=1, keepdims=True) for side in (x, y))
    scale = np.sqrt(np.square(x).sum(axis=1) * np.square(y).sum(axis=1))
    found = np.full(len(x), np.nan)
    np.divide((x * y).sum(axis=1), scale, out=found, where=scale > 1e-18)
    return found


def _spearman(x: Float64, y: Float64) -> Float64:
    return _pearson(rankdata(x, axis=1), rankdata(y, axis=1))


def _measured(value: float, resampled: Float64, count: int) -> Measured:
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Measured(value=value, low=float(low), high=float(high), n=count, how="bootstrap")
