"""A metric as columns, one row per unit, and the sums that tea-tasting reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from tea_tasting.aggr import Aggregates

__all__ = ["NAMES", "Column", "aggregates", "filled", "per_unit"]

Float64 = npt.NDArray[np.float64]

NAMES = ("numerator", "denominator", "before", "before_denominator")


@dataclass(frozen=True)
class Column:
    """A metric of N units, float64 [N] each.

    numerator, denominator: without a denominator the metric is the mean of the numerator; with one it is the sum of the
    numerators over the sum of the denominators. before, before_denominator: the same before the experiment, nan where
    a unit has none.
    """

    numerator: Float64
    denominator: Float64 | None = None
    before: Float64 | None = None
    before_denominator: Float64 | None = None

    def __len__(self) -> int:
        return len(self.numerator)

    def of(self, chosen: npt.NDArray[np.bool_] | slice) -> Column:
        """The chosen units, bool [N]."""
        return replace(self, **{name: values[chosen] for name, values in self.named().items()})

    def named(self) -> dict[str, Float64]:
        """The columns that there are, by name."""
        every = ((name, getattr(self, name)) for name in NAMES)
        return {name: values for name, values in every if values is not None}

    @property
    def constant(self) -> bool:
        """Whether the metric is the same for every unit, but for what rounding makes of it."""
        values = per_unit(self.numerator, self.denominator)
        return bool(np.ptp(values) <= 1e-9 * np.abs(values).max())

    @property
    def share(self) -> bool:
        """Whether every unit's value lies between 0 and 1."""
        return self.denominator is None and bool(((self.numerator >= 0) & (self.numerator <= 1)).all())

    def without_before(self) -> Column:
        """The same without its pre-period."""
        return Column(self.numerator, self.denominator)


def per_unit(numerator: Float64, denominator: Float64 | None) -> Float64:
    """One value per unit [N] whose mean is the metric, and whose variance over N is the delta method's."""
    if denominator is None:
        return numerator
    metric = numerator.sum() / denominator.sum()
    return np.asarray(metric + (numerator - metric * denominator) / denominator.mean())


def filled(columns: Sequence[Column]) -> list[Column]:
    """The same columns; units without a pre-period get the mean of all units that have one.

    That is the same for every arm, and so favours none. A pre-period that no unit has, or that does not vary, is
    dropped.
    """
    means: dict[str, float] = {}
    for name in NAMES[2:]:
        parts = [one.named().get(name) for one in columns]
        known = np.concatenate([one[~np.isnan(one)] for one in parts if one is not None] or [np.empty(0)])
        if None not in [None if one is None else 0 for one in parts] and len(known) and np.ptp(known) > 0:
            means[name] = float(known.mean())
    if "before" not in means:
        return [one.without_before() for one in columns]
    return [
        replace(
            one.without_before(),
            **{name: np.where(np.isnan(values := one.named()[name]), mean, values) for name, mean in means.items()},
        )
        for one in columns
    ]


def aggregates(column: Column, lift: float = 0.0) -> Aggregates:
    """Count, means, variances and covariances of a metric's columns.

    Where all units of a share have the same value, its variance is taken as if one unit differed: no unit out of 500 is
    not a rate of exactly 0. lift: is added to the metric, which changes no difference and no variance.
    """
    below = 1.0 if column.denominator is None else column.denominator
    named = column.named() | {"numerator": column.numerator + lift * below}
    names, count = list(named), len(column)
    covariance = np.atleast_2d(np.cov(np.stack(list(named.values()))))
    variances = {name: float(covariance[i, i]) for i, name in enumerate(names)}
    if column.constant and column.share:
        variances["numerator"] = 1 / count
    return Aggregates(
        count_=count,
        mean_={name: float(one.mean()) for name, one in named.items()},
        var_=variances,
        cov_={(names[i], names[j]): float(covariance[i, j]) for i in range(len(names)) for j in range(i)},
    )
