"""Drawings of an experiment: an arm over time, the response to the strength, guardrails against their margins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ..findings import ArmFound, Look, MetricFound, TrendFound
from .numbers import real
from .svg import WIDTH, axes, clipped, drawing, element, path, spanning, text, tick_writer

__all__ = ["dose_response", "loss_of_margin", "narrowing"]

_LEFT, _HEIGHT = 56, 300
_NORMAL = 1.96


def narrowing(looks: Sequence[Look], metric: str, reach: Sequence[float]) -> Markup:
    """An arm's difference after more and more units, within the interval that holds at every look.

    reach: values that the y axis holds too, so that arms can be compared; what lies beyond is cut.
    """
    across = spanning([0.0, *(float(one.units) for one in looks)], _LEFT, WIDTH - 14, rounded=False)
    up = spanning([0.0, *reach], _HEIGHT - 44, 28)

    def at(units: float, value: float) -> tuple[float, float]:
        return across(units), up(min(max(value, up.low), up.high))

    edge = [at(one.units, one.high) for one in looks] + [at(one.units, one.low) for one in reversed(looks)]
    dots = [
        element("circle", cx=x, cy=y, r=3, class_="mark", title=_look(one))
        for one in looks
        for x, y in [at(one.units, one.difference)]
    ]
    line = path([at(one.units, one.difference) for one in looks], class_="line")
    last = looks[-1]
    return drawing(
        "narrowing",
        f"Difference in {metric} over units; {_look(last)}.",
        _HEIGHT,
        axes(across, up, "units", f"difference in {metric}"),
        path(edge, class_="band"),
        element("line", x1=across.start, x2=across.end, y1=up(0), y2=up(0), class_="axis"),
        element("g", line, *dots, class_="series own"),
    )


def dose_response(arms: Sequence[ArmFound], metric: str, trend: TrendFound | None) -> Markup:
    """Each arm's value with its 95 % interval over its strength; above, the relative dose where it is known."""
    shown = [one for one in arms if one.alpha is not None and one.value is not None and one.error is not None]
    points = [(one, float(one.alpha or 0.0), float(one.value or 0.0), _NORMAL * (one.error or 0.0)) for one in shown]
    across = spanning([alpha for _, alpha, _, _ in points], _LEFT, WIDTH - 14)
    up = spanning([end for _, _, value, half in points for end in (value - half, value + half)], _HEIGHT - 44, 58)
    drawn = [axes(across, up, "strength α", metric)]
    known = [(alpha, one.dose) for one, alpha, _, _ in points if one.dose is not None]
    if any(dose for _, dose in known):
        drawn.append(element("line", x1=across.start, x2=across.end, y1=up.end, y2=up.end, class_="axis"))
        drawn.append(text(across.end, up.end - 26, "relative dose α‖v‖ / ‖h‖", "axis-name", "end"))
        drawn += [text(across(alpha), up.end - 7, real(dose or 0.0), "tick", "middle") for alpha, dose in known]
    for one, alpha, value, half in points:
        said = f"{one.name}, α = {alpha:g}: {value:.4g} ({value - half:.4g} to {value + half:.4g})"
        x = across(alpha)
        bar = element("line", x1=x, x2=x, y1=up(value - half), y2=up(value + half), class_="interval")
        dot = element("circle", cx=x, cy=up(value), r=4.5, class_="mark", title=said)
        drawn.append(element("g", bar, dot, class_="series own"))
    slope = "" if trend is None else f" Slope {trend.slope:.4g} per 1 of α."
    values = "; ".join(f"α = {alpha:g}: {value:.4g}" for _, alpha, value, _ in points)
    return drawing("dose", f"{metric} by strength: {values}.{slope}", _HEIGHT, *drawn)


def loss_of_margin(guards: Mapping[str, MetricFound]) -> Markup:
    """What each guardrail may have lost, as a share of its margin, with the interval that holds at every look.

    guards: by what they are called; each with a margin above 0 and an interval.
    """
    rows = []
    for name, one in guards.items():
        assert one.margin
        assert one.sequence
        assert one.difference is not None
        sign = (1 if one.better == "lower" else -1) / one.margin
        ends = sorted(sign * end for end in one.sequence)
        rows.append((name, sign * one.difference, ends[0], ends[1], one.state))
    across = spanning([0.0, 1.0, *(end for row in rows for end in row[1:4])], 18, WIDTH - 18)
    write, row, top = tick_writer(across), 48, 6
    bottom = top + row * len(rows)
    drawn = [
        element("line", x1=across(tick), x2=across(tick), y1=top, y2=bottom, class_="axis" if tick == 0 else "grid")
        for tick in across.ticks
    ]
    drawn += [text(across(tick), bottom + 17, write(tick), "tick", "middle") for tick in across.ticks]
    drawn.append(element("line", x1=across(1), x2=across(1), y1=top, y2=bottom, class_="chosen-line", title="margin"))
    for place, (name, value, low, high, state) in enumerate(rows):
        y = top + row * place
        said = f"{state}: {real(value)}  ({real(low)} to {real(high)})"
        bar = element("line", x1=across(low), x2=across(high), y1=y + 29, y2=y + 29, class_="interval")
        dot = element("circle", cx=across(value), cy=y + 29, r=5, class_="mark", title=f"{name}: {said}")
        drawn += [text(0, y + 15, clipped(name, 36), "label haloed"), text(WIDTH, y + 15, said, "tick haloed", "end")]
        drawn.append(element("g", bar, dot, class_="series own" if state == "safe" else "series"))
    alt = "; ".join(f"{name} {state}, {real(value)} of its margin" for name, value, _, _, state in rows)
    return drawing("guardrails", f"Loss as a share of the margin: {alt}.", bottom + 26, *drawn)


def _look(one: Look) -> str:
    return f"after {one.units:,} units {one.difference:.4g} ({one.low:.4g} to {one.high:.4g})"
