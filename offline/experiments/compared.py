"""Every arm beside the control: the primary metric, the guardrails, and the primary metric over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..findings import Look, MetricFound
from .columns import Column
from .design import Design
from .effect import Effect, against_control, effect
from .metrics import SPEED, Metric, Rows, column_of
from .sequence import half_width
from .units import Units
from .verdict import Interval, State, guarded, primary

__all__ = ["LOOKS", "Compared", "looked"]

LOOKS = 20
"""Points of the line that shows an arm over time."""
ALPHA = 0.05
_COLD = "not compared: arms of unequal weight differ in it by how warm their part of the prefix cache is"

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Compared:
    """Units, their outcomes and log, and the design. full: whether the planned size is reached."""

    units: Units
    outcomes: Rows
    log: Rows
    design: Design
    full: bool

    @cached_property
    def main(self) -> tuple[Bool, Column]:
        """Which units have a value of the primary metric (bool [N]), and those values."""
        return column_of(self.design.primary, self.units, self.outcomes, self.log)

    def of_arm(self, has: Bool, column: Column, place: int) -> Column:
        """The units of one arm among those that have a value."""
        return column.of(self.units.arm[has] == place)

    def primaries(self) -> dict[str, MetricFound]:
        """The primary metric by arm.

        Several arms share the false alarms: by Dunnett, and at every look by Bonferroni.
        """
        by_arm = [self.of_arm(*self.main, place) for place in range(len(self.design.arms))]
        several = len(by_arm) > 2
        fixed = against_control(by_arm[0], dict(zip(self.design.names[1:], by_arm[1:], strict=True))) if several else {}
        return {
            arm: self._found(self.design.primary, place, effect(by_arm[0], by_arm[place]), fixed.get(arm))
            for place, arm in enumerate(self.design.names)
            if place
        }

    def guardrails(self, place: int) -> tuple[MetricFound, ...]:
        """The guardrails of one arm. Their false alarms are not shared: to ship, every one of them has to be safe."""
        found = []
        for metric in self.design.guardrails:
            has, column = column_of(metric, self.units, self.outcomes, self.log)
            both = effect(self.of_arm(has, column, 0), self.of_arm(has, column, place))
            found.append(self._found(metric, place, both, None))
        return tuple(found)

    def looks(self, place: int) -> tuple[Look, ...]:
        """The primary metric of one arm after more and more units, in the order in which they came."""
        has, column = self.main
        if self._cold(self.design.primary):
            return ()
        came = np.flatnonzero(has) + 1
        found = []
        for count, one in looked(column, self.units.arm[has], place):
            low, high = self.sequence(one, place)
            found.append(Look(units=int(came[count - 1]), difference=one.difference, low=low, high=high))
        return tuple(found)

    def _cold(self, metric: Metric) -> bool:
        return not self.design.even and metric.name not in self.outcomes.values and metric.name in SPEED

    def sequence(self, one: Effect, place: int, shared: bool = True) -> Interval:
        """The interval of every look around the effect of an arm. shared: all arms share the false alarms."""
        alpha = ALPHA / (len(self.design.arms) - 1) if shared else ALPHA
        weights = self.design.weights
        planned = self.design.planned_units * (weights[0] + weights[place]) / sum(weights)
        half = float(half_width(one.error, sum(one.units), planned, alpha))
        return one.difference - half, one.difference + half

    def _found(self, metric: Metric, place: int, one: Effect | None, joint: Interval | None) -> MetricFound:
        """One metric of one arm. joint: the fixed interval that holds together with the other arms'."""
        if one is None or self._cold(metric):
            return MetricFound(
                name=metric.name,
                better=metric.better,
                margin=metric.margin,
                state=_state(metric, None),
                note=_COLD if one is not None else "too few units with a value, or all of them have the same",
            )
        sequence = self.sequence(one, place, shared=metric.margin is None)
        fixed = joint or (one.low, one.high)
        deciding = sequence if self.design.by == "sequence" else fixed if self.full else None
        return MetricFound(
            name=metric.name,
            better=metric.better,
            margin=metric.margin,
            state=_state(metric, deciding),
            control=one.control,
            value=one.arm,
            difference=one.difference,
            fixed=fixed,
            sequence=sequence,
            relative=one.relative,
            p=one.p,
            units=one.units,
            explained=one.explained,
        )


def looked(column: Column, arm: npt.NDArray[np.int64], place: int) -> Iterator[tuple[int, Effect]]:
    """The effect among the first units, 20 times, each with how many units that are; where it can be told.

    arm: int64 [N], 0 for the control, of the units of `column` in the order in which they came.
    """
    for count in np.unique(np.linspace(0, len(arm), LOOKS + 1)[1:].astype(int)):
        early = column.of(slice(count))
        one = effect(early.of(arm[:count] == 0), early.of(arm[:count] == place))
        if one is not None:
            yield int(count), one


def _state(metric: Metric, interval: Interval | None) -> State:
    if metric.margin is None:
        return primary(interval, metric.better)
    return guarded(interval, metric.better, metric.margin)
