"""From lines of outcomes and of the log to a metric: one row per unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from trimtab.vectors.experiments import Closing, Guardrail, Primary

from ..errors import DataError
from .columns import Column
from .outcomes import Outcomes
from .units import Units

__all__ = ["LINES", "SERVED", "SPEED", "Metric", "Rows", "column_of", "joined", "logged"]

Float64 = npt.NDArray[np.float64]

SPEED = ("queue_s", "first_token_s", "per_token_s", "e2e_s", "cached_tokens")
"""What an arm's share of the traffic changes by itself: with less of it, its part of the prefix cache is colder."""
SERVED = (*SPEED, "prompt_tokens", "generated_tokens", "aborted", "failed")
"""The metrics that a log holds itself, per request; aborted and failed are 0 or 1."""
LINES = "lines"
"""The denominator that counts the lines of a unit which hold the metric."""
BEFORE = "_before"


@dataclass(frozen=True)
class Metric:
    """margin: the largest loss that is accepted of a guardrail, in the metric's unit; None of the primary metric.

    kind: "mean" counts each unit once, with the mean of its lines; "ratio" divides sums over all units.
    """

    name: str
    better: Literal["higher", "lower"] = "higher"
    kind: Literal["mean", "ratio"] = "mean"
    denominator: str | None = None
    margin: float | None = None

    @classmethod
    def of(cls, name: str, planned: Primary | Guardrail) -> Metric:
        """A metric of a plan."""
        margin = planned.margin if isinstance(planned, Guardrail) else None
        return cls(name, planned.better, planned.kind, planned.denominator, margin)


@dataclass(frozen=True)
class Rows:
    """R lines. of: int64 [R], the unit of each. values: float64 [R] by metric, nan where a line has none."""

    of: npt.NDArray[np.int64]
    values: Mapping[str, Float64]


def joined(outcomes: Outcomes, units: Units) -> tuple[Rows, dict[str, int]]:
    """The outcomes of these units, and what was left out.

    Of several lines for one exposure the last that holds a metric counts. A line for a unit that is older than the
    unit's first exposure is left out.
    """
    by_exposure = {one.exposure_id: int(of) for one, of in zip(units.exposures, units.of, strict=True)}
    by_unit = {name: i for i, name in enumerate(units.names)}
    of = np.array(
        [
            by_exposure.get(exposure, -1) if exposure else by_unit.get(unit, -1)
            for exposure, unit in zip(outcomes.exposures, outcomes.units, strict=True)
        ],
        np.int64,
    )
    known = of >= 0
    named = np.array([bool(one) for one in outcomes.exposures])
    with np.errstate(invalid="ignore"):
        early = known & ~named & (outcomes.when < units.first[of])
    kept = known & ~early
    values = {name: np.where(kept, one, np.nan) for name, one in outcomes.values.items()}
    corrected = 0
    last: dict[tuple[str, str], int] = {}
    for i in np.flatnonzero(kept & named):
        for name, one in values.items():
            if not np.isnan(one[i]):
                before = last.get((outcomes.exposures[i], name))
                if before is not None:
                    one[before] = np.nan
                    corrected += 1
                last[outcomes.exposures[i], name] = int(i)
    counted = {
        "outcomes without an exposure here, left out": int((~known).sum()),
        "outcomes older than their unit's first exposure, left out": int(early.sum()),
        "outcomes that a later line for the same exposure replaced": corrected,
    }
    return Rows(of[kept], {name: one[kept] for name, one in values.items()}), counted


def logged(units: Units) -> Rows:
    """What the log itself says of each request that ended."""
    pairs = [
        (int(of), closing)
        for one, of in zip(units.exposures, units.of, strict=True)
        if (closing := units.closings.get(one.exposure_id)) is not None
    ]
    return Rows(
        np.array([of for of, _ in pairs], np.int64),
        {name: np.array([_served(name, closing) for _, closing in pairs], np.float64) for name in SERVED},
    )


def column_of(metric: Metric, units: Units, outcomes: Rows, log: Rows) -> tuple[npt.NDArray[np.bool_], Column]:
    """Which units have a value (bool [N]), and the metric of those.

    Raises:
        DataError: neither the outcomes nor the log hold such a metric; lists those that there are.
    """
    rows = outcomes if metric.name in outcomes.values else log
    values = _named(rows, metric.name, outcomes, log)
    below = None
    if metric.kind == "ratio":
        assert metric.denominator is not None
        below = np.ones_like(values) if metric.denominator == LINES else _named(rows, metric.denominator, outcomes, log)
    count = len(units)
    given = ~np.isnan(values) & (True if below is None else ~np.isnan(below))
    of = rows.of[given]
    lines = np.bincount(of, minlength=count)
    chosen = lines > 0
    numerator = _sums(of, values[given], count)[chosen]
    before = _before(rows, metric.name, count)
    if below is None:
        return chosen, Column(numerator / lines[chosen], before=None if before is None else before[chosen])
    # Of a ratio whose denominator has no pre-period, that of the metric alone explains something as well.
    below_before = _before(rows, metric.denominator or "", count)
    return chosen, Column(
        numerator,
        _sums(of, below[given], count)[chosen],
        None if before is None else before[chosen],
        None if before is None or below_before is None else below_before[chosen],
    )


def _sums(of: npt.NDArray[np.int64], values: Float64, count: int) -> Float64:
    return np.asarray(np.bincount(of, values, count), np.float64)


def _named(rows: Rows, name: str, outcomes: Rows, log: Rows) -> Float64:
    if name not in rows.values:
        known = ", ".join(one for one in outcomes.values if not one.endswith(BEFORE)) or "none"
        raise DataError(f"there is no metric {name!r}; the outcomes hold {known}, and the log {', '.join(log.values)}")
    return np.asarray(rows.values[name], np.float64)


def _before(rows: Rows, name: str, count: int) -> Float64 | None:
    """The mean of a unit's lines, nan where it has none; None where no line has any."""
    values = rows.values.get(name + BEFORE)
    if values is None or np.isnan(values).all():
        return None
    given = ~np.isnan(values)
    lines = np.bincount(rows.of[given], minlength=count)
    with np.errstate(invalid="ignore"):
        return _sums(rows.of[given], values[given], count) / lines


def _served(name: str, closing: Closing) -> float:
    if name == "aborted":
        return float(closing.finish_reason == "abort")
    if name == "failed":
        return float(closing.finish_reason == "error")
    value = getattr(closing, name)
    return float("nan") if value is None else float(value)
