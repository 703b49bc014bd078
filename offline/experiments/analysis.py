"""An experiment's log and outcomes → what it says so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from trimtab.vectors.experiments import Closing, Exposure

from ..errors import DataError
from ..findings import ArmFound, ExperimentFound, TrendFound, Verdict
from .columns import Column, per_unit
from .compared import Compared
from .design import ArmDesign, Design
from .dose import trend
from .effect import FEWEST
from .hints import hints
from .metrics import Rows, column_of, joined, logged
from .outcomes import Outcomes
from .served import served_by_arm
from .srm import ALARM, mismatch
from .units import Units, units_of
from .verdict import decide, together

__all__ = ["analysed", "earlier"]

DoseOf = Callable[[str, float], float | None]


def analysed(
    exposures: Sequence[Exposure],
    closings: Sequence[Closing],
    outcomes: Outcomes,
    design: Design,
    dose_of: DoseOf = lambda profile, alpha: None,
) -> ExperimentFound:
    """All that can be told. dose_of: a profile and a strength → α‖v‖ / ‖h‖, None where it is not known.

    Raises:
        DataError: no outcome belongs to an exposure; what `units_of` and `column_of` raise.
    """
    every = units_of(exposures, closings, design.experiment, design.seed, design.names)
    full = len(every) >= design.planned_units
    units = every.upto(design.planned_units) if design.by == "planned" else every
    rows, left = _joined(outcomes, units)
    compared = Compared(units, rows, logged(units), design, full)
    has, main = compared.main
    assigned, measured = units.per_arm(), units.per_arm(has)
    p, missing = mismatch(assigned, design.weights), mismatch(measured, design.weights)
    served = served_by_arm(units, compared.log, design.even)
    primaries = compared.primaries()
    arms: list[ArmFound] = []
    for place, arm in enumerate(design.arms):
        value, error = _value(compared.of_arm(has, main, place))
        found = ArmFound(
            name=arm.name,
            weight=arm.weight,
            steering=arm.steering,
            alpha=arm.alpha,
            dose=_dose(arm, dose_of),
            units=assigned[place],
            measured=measured[place],
            value=value,
            error=error,
            served=served[place],
        )
        if place:
            first, guards = primaries[arm.name], compared.guardrails(place)
            states = {one.name: one.state for one in guards}
            verdict, why = decide(
                min(p, missing) < ALARM, first.state, states, full, design.by == "planned" and not full
            )
            told = {"verdict": verdict, "why": why, "metrics": (first, *guards), "looks": compared.looks(place)}
            found = found.model_copy(update=told)
        arms.append(found)
    verdict = together([one.verdict for one in arms if one.verdict is not None])
    return ExperimentFound(
        title=f"Experiment {design.experiment}",
        note=_NOTES[design.by].format(design.planned_units),
        experiment=design.experiment,
        seed=design.seed,
        verdict=verdict,
        why=_why(arms, verdict, design),
        by=design.by,
        planned_units=design.planned_units,
        units=len(units),
        arms=tuple(arms),
        mismatch=p,
        missing=missing,
        hints=tuple(hints(units, design, served, p, missing)),
        trend=_trend(arms, design),
        counted={name: count for name, count in (units.counted | left).items() if count},
        plan=design.plan,
    )


def earlier(exposures: Sequence[Exposure], closings: Sequence[Closing], outcomes: Outcomes, design: Design) -> Column:
    """The primary metric of the control's units: what a new experiment is planned by.

    Raises:
        DataError: as `analysed`.
    """
    units = units_of(exposures, closings, design.experiment, design.seed, design.names)
    has, column = column_of(design.primary, units, _joined(outcomes, units)[0], logged(units))
    return column.of(units.arm[has] == 0)


def _joined(outcomes: Outcomes, units: Units) -> tuple[Rows, dict[str, int]]:
    rows, left = joined(outcomes, units)
    if not len(rows.of):
        raise DataError(
            f"none of the {len(outcomes):,} outcomes belongs to an exposure of this experiment; give exposure_id as "
            "the answer has it, or unit as the log has it. Where outcomes name units by themselves, give --unit-key"
        )
    return rows, left


_NOTES = {
    "sequence": "The interval of every look decides: it holds however often it is looked at. The other one holds only "
    "where the experiment is looked at once, at {:,} units.",
    "planned": "The interval of the planned size decides, and only the first {:,} units count.",
}


def _value(column: Column) -> tuple[float | None, float | None]:
    """An arm's own value and its standard error; None for fewer than 30 units."""
    if len(column) < FEWEST or (column.denominator is not None and column.denominator.sum() <= 0):
        return None, None
    values = per_unit(column.numerator, column.denominator)
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))


def _dose(arm: ArmDesign, dose_of: DoseOf) -> float | None:
    if arm.alpha == 0:
        return 0.0
    return None if arm.profile is None or arm.alpha is None else dose_of(arm.profile, arm.alpha)


def _trend(arms: Sequence[ArmFound], design: Design) -> TrendFound | None:
    """Over the arms of one profile and those without any; None where an arm has another form."""
    if any(one.alpha is None or one.value is None or one.error is None for one in arms):
        return None
    if len({one.profile for one in design.arms if one.profile is not None}) > 1:
        return None
    found = trend(
        [one.alpha or 0.0 for one in arms],
        [one.value or 0.0 for one in arms],
        [one.error or 0.0 for one in arms],
        [one.measured for one in arms],
    )
    return None if found is None else TrendFound(slope=found.slope, low=found.low, high=found.high, p=found.p)


def _why(arms: Sequence[ArmFound], verdict: Verdict, design: Design) -> tuple[str, ...]:
    """The reasons, by arm; where one of several may ship, which."""
    told = [f"{one.name}: {' '.join(one.why)}" for one in arms if one.verdict is not None]
    if verdict != "ship":
        return tuple(told)
    sign = 1 if design.primary.better == "higher" else -1
    best = max(
        (one for one in arms if one.verdict == "ship"), key=lambda one: sign * (one.metrics[0].difference or 0.0)
    )
    first = f"Ship {best.name}."
    if len(arms) > 2:
        first += " It was chosen among several by the same units, so its effect looks larger than it is: confirm it on"
        first += " fresh ones."
    return (first, *told)
