"""Whether a metric follows the strength: one trend over all arms, before arms are compared in pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from .effect import LEVEL

__all__ = ["Trend", "trend"]


@dataclass(frozen=True)
class Trend:
    """slope: of the metric per 1 of α, with its interval; p: of no slope."""

    slope: float
    low: float
    high: float
    p: float


def trend(
    alphas: Sequence[float], values: Sequence[float], errors: Sequence[float], units: Sequence[int]
) -> Trend | None:
    """The line through the arms' values, each as heavy as its units. None: fewer than three different strengths.

    errors: the standard error of each value.
    """
    if len(set(alphas)) < 3:
        return None
    x, y, se, n = (np.asarray(one, np.float64) for one in (alphas, values, errors, units))
    weights = n * (x - np.average(x, weights=n))
    weights = weights / (weights @ x)
    slope, error = float(weights @ y), float(np.sqrt(np.square(weights * se).sum()))
    if error == 0:
        return None
    half = float(norm.ppf((1 + LEVEL) / 2)) * error
    return Trend(slope, slope - half, slope + half, math.erfc(abs(slope / error) / math.sqrt(2)))
