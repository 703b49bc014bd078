"""Sample ratio mismatch: whether units came in the proportion of the arms' weights, and where they did not.

A mismatch says that something chose between the arms besides chance, so that no effect can be trusted (Fabijan et al.,
"Diagnosing Sample Ratio Mismatch in Online Controlled Experiments", KDD 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2_contingency, chisquare

__all__ = ["ALARM", "mismatch", "uneven", "where"]

ALARM = 0.001
"""The p below which units are said not to follow the weights: strict, since it is looked at again and again."""


def mismatch(observed: Sequence[int], weights: Sequence[float]) -> float:
    """p of the χ² test of units by arm against the weights; 1.0 where there is no unit."""
    total = sum(observed)
    if total == 0:
        return 1.0
    expected = np.asarray(weights, np.float64) / sum(weights) * total
    return float(chisquare(observed, expected).pvalue)


def uneven(happened: Sequence[int], of: Sequence[int]) -> float:
    """p that a share, such as that of aborted requests, is the same in every arm; 1.0 where it is all or nothing."""
    table = np.array([happened, np.subtract(of, happened)])
    if (table.sum(axis=0) == 0).any() or (table.sum(axis=1) == 0).any():
        return 1.0
    return float(chi2_contingency(table, correction=False).pvalue)


def where(
    arm: npt.NDArray[np.int64], weights: Sequence[float], slices: Mapping[str, Sequence[str]]
) -> list[tuple[str, str, float]]:
    """The parts of the traffic whose units do not follow the weights, worst first: (what, which, p).

    arm: int64 [N], indices of `weights`. slices: by what the traffic can be cut, such as "replica": one value per unit.
    The bound is divided by the number of parts that are looked at.
    """
    found = []
    for what, values in slices.items():
        names, codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)
        if len(names) < 2:
            continue
        table = np.zeros((len(names), len(weights)), np.int64)
        np.add.at(table, (codes, arm), 1)
        found += [(what, str(name), mismatch(row.tolist(), weights)) for name, row in zip(names, table, strict=True)]
    return sorted((one for one in found if one[2] < ALARM / len(found)), key=lambda one: one[2])
