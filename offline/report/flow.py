"""A flow chart of answers: original ones on the left, new ones on the right. A band is as wide as it has answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from markupsafe import Markup

from .numbers import count
from .svg import WIDTH, clipped, drawing, element, text

__all__ = ["changed", "flow_chart", "folded"]

_LEFT, _RIGHT = 118, WIDTH - 118
_BAR, _GAP, _TALL = 9, 15, 260

_REST = "\N{NO-BREAK SPACE}others"

Flow = Counter[tuple[str, str]]


def changed(flow: Iterable[tuple[str, str, int]]) -> Flow:
    """How many answers went from one to another; those that stayed are left out."""
    total: Flow = Counter()
    for before, after, many in flow:
        if before != after and many:
            total[before, after] += many
    return total


def folded(flow: Flow, keep: int = 7) -> Flow:
    """The same flow with all but the largest answers of each side named together."""
    kept = [_largest(flow, side, keep) for side in (0, 1)]
    total: Flow = Counter()
    for ends, many in flow.items():
        before, after = (end if end in names else rest for end, (names, rest) in zip(ends, kept, strict=True))
        total[before, after] += many
    return total


def flow_chart(flow: Flow) -> Markup:
    """Bands from left to right, the rest at the bottom. Those into the most frequent new answer are coloured."""
    sides = [_totals(flow, side) for side in (0, 1)]
    per_unit = _TALL / flow.total()
    height = 30 + _TALL + _GAP * max(len(side) for side in sides)
    tops = [_tops(side, per_unit, height) for side in sides]
    target = next(iter(sides[1]))
    drawn = [text(_LEFT, 12, "original", "axis-name", "end"), text(_RIGHT, 12, "new", "axis-name")]
    cursor = [dict(side) for side in tops]
    order = [{name: place for place, name in enumerate(side)} for side in sides]
    for (before, after), many in sorted(flow.items(), key=lambda one: (order[0][one[0][0]], order[1][one[0][1]])):
        thick = many * per_unit
        y0, y1 = cursor[0][before], cursor[1][after]
        cursor[0][before], cursor[1][after] = y0 + thick, y1 + thick
        drawn.append(_band(y0, y1, thick, f"{before} → {after}: {count(many)}", after == target))
    for side, (x, anchor) in enumerate(((_LEFT, "end"), (_RIGHT, "start"))):
        for name, many in sides[side].items():
            drawn.append(_bar(x if side else x - _BAR, tops[side][name], many * per_unit, f"{name}: {count(many)}"))
            middle = tops[side][name] + many * per_unit / 2 + 4
            label = element("tspan", clipped(name, 12)), " ", element("tspan", count(many), class_="soft")
            drawn.append(
                element("text", *label, x=x + (15 if side else -15), y=middle, class_="label", text_anchor=anchor)
            )
    largest = ", ".join(f"{before} to {after} {count(many)}" for (before, after), many in flow.most_common(5))
    return drawing("flow", f"Answers that changed: {largest}.", height, *drawn)


def _totals(flow: Flow, side: int) -> dict[str, int]:
    total: Counter[str] = Counter()
    for ends, many in flow.items():
        total[ends[side]] += many
    return dict(sorted(total.items(), key=lambda one: (one[0].endswith(_REST), -one[1], one[0])))


def _largest(flow: Flow, side: int, keep: int) -> tuple[frozenset[str], str]:
    names = list(_totals(flow, side))
    if len(names) <= keep + 1:
        return frozenset(names), ""
    return frozenset(names[:keep]), count(len(names) - keep) + _REST


def _tops(totals: dict[str, int], per_unit: float, height: float) -> dict[str, float]:
    used = sum(totals.values()) * per_unit + _GAP * (len(totals) - 1)
    y = 24 + (height - 30 - used) / 2
    found = {}
    for name, many in totals.items():
        found[name] = y
        y += many * per_unit + _GAP
    return found


def _band(y0: float, y1: float, thick: float, title: str, wanted: bool) -> Markup:
    middle = (_LEFT + _RIGHT) / 2
    thick = max(thick, 0.6)
    d = (
        f"M{_LEFT},{y0:.2f}C{middle},{y0:.2f} {middle},{y1:.2f} {_RIGHT},{y1:.2f}v{thick:.2f}"
        f"C{middle},{y1 + thick:.2f} {middle},{y0 + thick:.2f} {_LEFT},{y0 + thick:.2f}z"
    )
    return element("path", d=d, class_="mark band wanted" if wanted else "mark band", title=title)


def _bar(x: float, y: float, height: float, title: str) -> Markup:
    return element("rect", x=x, y=y, width=_BAR, height=max(height, 0.6), class_="bar", title=title)
