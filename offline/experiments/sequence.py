"""The always-valid interval: looked at as often as one likes, the truth leaves it once in 20 experiments at most.

The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit
theory and asymptotic confidence sequences" (2021), theorem 2.2, with ρ chosen for one number of units as in its
appendix B.2. It is wider than a fixed interval of the same data (about 1.55 times at the planned size) and is never
undone by looking early.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["PLANNED", "half_width"]

PLANNED = 10_000
"""Units for which the interval is narrowest where no plan names a number. Any fixed number is valid."""


def half_width(
    error: npt.ArrayLike, units: npt.ArrayLike, planned: float, alpha: float = 0.05
) -> npt.NDArray[np.float64]:
    """Half the width of the interval around an estimate.

    error: the standard error of the estimate so far. units: how many units it stands on, both arms together; both of
    any one shape, which the result has. planned: the units for which it is narrowest, fixed before the first look.
    alpha: how often the truth may leave it.
    """
    error, units = np.asarray(error, np.float64), np.asarray(units, np.float64)
    peak = -2 * math.log(alpha)
    grown = units * (peak + math.log(peak + 1)) / planned  # N ρ²
    return np.asarray(error * np.sqrt(2 * (grown + 1) / grown * np.log(np.sqrt(grown + 1) / alpha)))
