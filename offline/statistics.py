"""Figures with their 95 % intervals: shares (Wilson), means and correlations (percentile bootstrap)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, rankdata

from .findings import Measured

__all__ = ["correlation", "mean", "over_draws", "rate"]

Float64 = npt.NDArray[np.float64]

RESAMPLES = 2000
FEWEST = 4
"""A correlation of fewer points than this says nothing."""
_AT_ONCE = 4_000_000  # draws that are in memory together: 214,354 answers, each drawn 2,000 times, would be 3.4 GB


def rate(hits: int, n: int) -> Measured:
    """A share of n cases with its Wilson interval; of no case at all: 0, anywhere from 0 to 1."""
    if n == 0:
        return Measured(value=0.0, low=0.0, high=1.0, n=0, how="wilson")
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    low, high = min(float(interval.low), hits / n), max(float(interval.high), hits / n)
    return Measured(value=hits / n, low=low, high=high, n=n, how="wilson")


def over_draws(figures: Sequence[Measured]) -> Measured:
    """One figure, measured once per random draw: the mean, from the least of the intervals' ends to the largest.

    So the interval holds that of every draw. n: that of one draw. A figure of a single draw is itself.
    """
    if len(figures) == 1:
        return figures[0]
    return Measured(
        value=math.fsum(one.value for one in figures) / len(figures),
        low=min(one.low for one in figures),
        high=max(one.high for one in figures),
        n=figures[0].n,
        how="draws",
    )


def mean(values: npt.ArrayLike, seed: int = 0) -> Measured:
    """The mean of values [N], resampled over the N; of no value at all: 0. Equal values have no width."""
    array = np.asarray(values, np.float64)
    if not len(array):
        return Measured(value=0.0, low=0.0, high=0.0, n=0, how="bootstrap")
    centre = math.fsum(array) / len(array)
    if np.ptp(array) == 0:
        return Measured(value=centre, low=centre, high=centre, n=len(array), how="bootstrap")
    means = np.concatenate([array[draws].mean(axis=1) for draws in _draws(len(array), seed)])
    return _measured(centre, means, len(array))


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
    resampled = np.concatenate([of(pairs[0][draws], pairs[1][draws]) for draws in _draws(count, seed)])
    return _measured(r, resampled[np.isfinite(resampled)], count)


def _draws(count: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """RESAMPLES rows of `count` indices, in parts. The parts do not depend on how much fits into memory at once."""
    random = np.random.default_rng(seed)
    rows = max(1, _AT_ONCE // count)
    for start in range(0, RESAMPLES, rows):
        yield random.integers(0, count, (min(rows, RESAMPLES - start), count))


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
