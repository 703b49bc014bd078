"""The section of an experiment: its verdict, arms over time, dose and response, guardrails, sample ratio."""

from __future__ import annotations

from collections.abc import Sequence

from ..findings import ArmFound, ExperimentFound, MetricFound
from .numbers import count, share
from .parts import Cell, Chart, Charts, Facts, Lines, Part, Table, column, table
from .pictures import Pictures
from .trial import dose_response, loss_of_margin, narrowing

__all__ = ["experiment_parts"]

_NARROWING = (
    "The line is the arm minus the control among the units so far, in the order in which they came. The band holds the "
    "truth at every look together, so that it may be acted on as soon as it leaves 0."
)
_DOSE = "Each arm's own value with its 95 % interval."
_GUARDS = "0: as in the control. The dashed line, 1: the margin. Safe is what lies left of it with its whole interval."
_SETTLED = 3
"""The y axis holds the intervals from the look on that has the last one's number of units divided by this."""


def experiment_parts(found: ExperimentFound, pictures: Pictures) -> list[Part]:
    facts = {
        "verdict": found.verdict,
        "why": " ".join(found.why),
        "units": f"{count(found.units)} of {count(found.planned_units)} planned",
        "seed": found.seed,
        "sample ratio": f"p = {found.mismatch:.2g}; of units with a value p = {found.missing:.2g}",
    }
    if found.trend is not None:
        one = found.trend
        facts["trend per 1 of α"] = f"{one.slope:.4g} ({one.low:.4g} to {one.high:.4g}), p = {one.p:.2g}"
    parts: list[Part] = [Facts(facts), *_drawn(found)]
    parts.append(_arms(found.arms))
    parts += [_metrics(arm, found.arms[0].name) for arm in found.arms[1:]]
    if found.counted:
        columns = {"counted": column(list(found.counted)), "n": column(list(found.counted.values()), "count")}
        parts.append(table("Left out, or may bias", columns))
    if found.hints:
        parts.append(Lines(f"{len(found.hints)} hints", found.hints))
    return parts


def _drawn(found: ExperimentFound) -> list[Part]:
    treated = found.arms[1:]
    parts: list[Part] = []
    settled = [one for arm in treated for one in arm.looks if one.units >= arm.looks[-1].units / _SETTLED]
    reach = [end for one in settled for end in (one.low, one.high)]
    over_time = [
        Chart(f"{arm.name} over time", narrowing(arm.looks, arm.metrics[0].name, reach)) for arm in treated if arm.looks
    ]
    if over_time:
        parts.append(Charts(over_time, _NARROWING))
    dosed = [one for one in found.arms if one.alpha is not None and one.value is not None]
    charts = []
    if len({one.alpha for one in dosed}) > 1:
        metric = treated[0].metrics[0].name
        charts.append(Chart("Dose and response", dose_response(dosed, metric, found.trend), _DOSE))
    guards = {
        f"{arm.name}: {one.name}" if len(treated) > 1 else one.name: one
        for arm in treated
        for one in arm.metrics[1:]
        if one.margin and one.sequence is not None
    }
    if guards:
        charts.append(Chart("Guardrails: loss as a share of the margin", loss_of_margin(guards), _GUARDS))
    return [*parts, Charts(charts)] if charts else parts


def _arms(arms: Sequence[ArmFound]) -> Table:
    served = [one.served for one in arms]
    total, weights = sum(one.units for one in arms), sum(one.weight for one in arms)
    columns = {
        "arm": column([one.name for one in arms]),
        "steering": column([one.steering for one in arms]),
        "relative dose": column([one.dose for one in arms], "real"),
        "weight": column([one.weight for one in arms]),
        "units": column([one.units for one in arms], "count"),
        "expected": column([total * one.weight / weights for one in arms], "count"),
        "with a value": column([one.measured for one in arms], "count"),
        "requests": column([one.requests for one in served], "count"),
        "aborted": [_of(one.aborted, one.ended) for one in served],
        "failed": [_of(one.failed, one.ended) for one in served],
        "served something else": [_of(one.other, one.requests) for one in served],
        "tokens, median": column([one.generated for one in served], "count"),
        "from the cache": column([one.cached for one in served], "share"),
        "first token, ms": column([_ms(one.first_token) for one in served], "count"),
        "per token, ms": column([_ms(one.per_token) for one in served], "real"),
    }
    return table("Arms", columns)


def _metrics(arm: ArmFound, control: str) -> Table:
    shown = arm.metrics
    columns = {
        "metric": column([one.name for one in shown]),
        "state": [Cell(one.state, small=one.note) for one in shown],
        control: [_figure(one.control) for one in shown],
        arm.name: [_figure(one.value) for one in shown],
        "difference": [_figure(one.difference) for one in shown],
        "at every look": [_interval(one.sequence) for one in shown],
        "at the planned size": [_interval(one.fixed) for one in shown],
        "relative": [_relative(one) for one in shown],
        "margin": [_figure(one.margin) for one in shown],
        "explained by the pre-period": column([one.explained or None for one in shown], "share"),
    }
    return table(f"{arm.name} beside {control}: {arm.verdict}", columns, folded=False)


def _of(some: int, of: int) -> Cell:
    return Cell(count(some), some, share(some / of, 2) if of else "")


def _ms(value: float | None) -> float | None:
    return None if value is None else 1000 * value


def _figure(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(f"{value:.4g}".replace("-", "−"), value)


def _interval(pair: tuple[float, float] | None) -> Cell:
    return Cell("–") if pair is None else Cell(f"{pair[0]:.4g} to {pair[1]:.4g}".replace("-", "−"), pair[0])


def _relative(one: MetricFound) -> Cell:
    if one.relative is None:
        return Cell("–")
    value, low, high = one.relative
    return Cell(share(value), value, f"{share(low)} to {share(high)}")
