"""Charts of a study's figures. Elements that draw a value have the class `mark`; axes and frames do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from markupsafe import Markup

from ..findings import Measured
from .numbers import measured, percent, real
from .svg import WIDTH, Scale, Write, apart, axes, clipped, drawing, element, path, spanning, text, tick_writer

__all__ = ["curves", "dumbbells", "intervals", "scatter"]

_LEFT, _TOP, _HEIGHT = 46, 28, 300
_FEW = 6


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    x_name: str,
    y_name: str,
    chosen: float | None = None,
    holding: Sequence[float] = (),
) -> Markup:
    """Lines over x. Up to six are told apart by colour; more are grey, with their mean in the accent colour.

    chosen: an x to highlight. holding: values that the y axis always includes.
    """
    few = len(lines) <= _FEW
    alone = len(lines) == 1
    right = WIDTH - (14 if alone else 112)
    across = spanning(x, _LEFT, right, rounded=False)
    up = spanning(chain(holding, *lines.values()), _HEIGHT - 44, _TOP)
    drawn = [axes(across, up, x_name, y_name)]
    if chosen is not None:
        drawn.append(
            element("line", x1=across(chosen), x2=across(chosen), y1=_TOP, y2=_HEIGHT - 44, class_="chosen-line")
        )
        drawn.append(text(across(chosen) + 5, _TOP + 10, f"chosen: {chosen:g}", "label accent"))
    for place, (name, line) in enumerate(lines.items()):
        dots = [
            element("circle", cx=across(a), cy=up(b), r=3, class_="mark", title=f"{name}, {a:g}: {real(b)}")
            for a, b in zip(x, line, strict=True)
        ]
        stroke = path([(across(a), up(b)) for a, b in zip(x, line, strict=True)], class_="line")
        drawn.append(element("g", stroke, *dots, class_=f"series c{place}" if few else "series quiet"))
    ends = {name: line[-1] for name, line in lines.items()}
    if not few:
        mean = [sum(values) / len(lines) for values in zip(*lines.values(), strict=True)]
        stroke = path([(across(a), up(b)) for a, b in zip(x, mean, strict=True)], class_="line")
        drawn.append(element("g", stroke, class_="series mean", title="mean"))
        ends = _extremes(ends) | {"mean": mean[-1]}
    if not alone:
        drawn.append(_end_labels(ends, up, right + 8, few))
    return drawing("curves", f"{y_name or 'Quality'} against {x_name}: {_ends_in_words(ends)}.", _HEIGHT, *drawn)


def _extremes(ends: dict[str, float]) -> dict[str, float]:
    order = sorted(ends, key=lambda name: ends[name])
    return {name: ends[name] for name in (order[0], order[1], order[-2], order[-1])}


def _end_labels(ends: dict[str, float], up: Scale, x: float, coloured: bool) -> Markup:
    heights = apart([up(value) + 4 for value in ends.values()], 14)
    classes = [
        f"label t{i}" if coloured else "label accent" if name == "mean" else "label" for i, name in enumerate(ends)
    ]
    return Markup("").join(
        text(x, y, clipped(name, 15), class_, title=name)
        for name, y, class_ in zip(ends, heights, classes, strict=True)
    )


def _ends_in_words(ends: dict[str, float]) -> str:
    return "at the end " + ", ".join(f"{name} {real(value)}" for name, value in list(ends.items())[:_FEW])


def intervals(figures: Mapping[str, Measured], pointed_out: str = "") -> Markup:
    """A dot and its 95 % interval for each figure, one below the other on a common scale that holds zero."""
    reach = chain.from_iterable((one.low, one.high, one.value) for one in figures.values())
    across = spanning([0.0, *reach], 18, WIDTH - 18)
    write, row, top = tick_writer(across), 48, 6
    bottom = top + row * len(figures)
    drawn = [
        element("line", x1=across(tick), x2=across(tick), y1=top, y2=bottom, class_="axis" if tick == 0 else "grid")
        for tick in across.ticks
    ]
    drawn += [text(across(tick), bottom + 17, write(tick), "tick", "middle") for tick in across.ticks]
    for place, (name, one) in enumerate(figures.items()):
        y = top + row * place
        said = f"{real(one.value)}  ({real(one.low)} to {real(one.high)})"
        class_ = "series own" if not pointed_out or name == pointed_out else "series"
        bar = element("line", x1=across(one.low), x2=across(one.high), y1=y + 29, y2=y + 29, class_="interval")
        dot = element("circle", cx=across(one.value), cy=y + 29, r=5, class_="mark", title=f"{name}: {measured(one)}")
        drawn += [text(0, y + 15, clipped(name, 46), "label haloed"), text(WIDTH, y + 15, said, "tick haloed", "end")]
        drawn.append(element("g", bar, dot, class_=class_))
    alt = "; ".join(f"{name} {measured(one)}" for name, one in figures.items())
    return drawing("intervals", f"With 95 % intervals: {alt}.", bottom + 26, *drawn)


def dumbbells(rows: Sequence[tuple[str, float, float]], name: str, in_percent: bool = False) -> Markup:
    """One line per label from its old value (a ring) to its new one (a dot), the largest gain on top."""
    write: Write = percent if in_percent else real
    left, row, top = 112, 21, 30
    order = sorted(rows, key=lambda one: one[1] - one[2])
    bottom = top + row * len(order)
    across = spanning([0.0, *(value for _, *pair in rows for value in pair)], left, WIDTH - 14)
    write_tick = tick_writer(across)
    drawn = [text(WIDTH - 14, 12, name, "axis-name", "end")]
    for tick in across.ticks:
        drawn.append(element("line", x1=across(tick), x2=across(tick), y1=top - 6, y2=bottom, class_="grid"))
        drawn.append(text(across(tick), bottom + 16, write_tick(tick), "tick", "middle"))
    for place, (label, before, after) in enumerate(order):
        y = top + row * (place + 0.5)
        drawn.append(text(left - 12, y + 4, clipped(label, 14), "label", "end", title=label))
        title = f"{label}: {write(before)} before, {write(after)} after"
        line = element("line", x1=across(before), x2=across(after), y1=y, y2=y, class_="interval")
        ring = element("circle", cx=across(before), cy=y, r=4, class_="ring")
        dot = element("circle", cx=across(after), cy=y, r=4.5, class_="mark", title=title)
        drawn.append(element("g", line, ring, dot, class_="series own"))
    gained = sum(after > before for _, before, after in rows)
    return drawing("dumbbells", f"{name} rises for {gained} of {len(rows)} concepts.", bottom + 26, *drawn)


def scatter(points: Sequence[tuple[str, float, float]], x_name: str, y_name: str) -> Markup:
    """One dot a label."""
    across = spanning([x for _, x, _ in points], _LEFT, WIDTH - 14)
    up = spanning([y for _, _, y in points], _HEIGHT - 44, _TOP)
    dots = [
        element("circle", cx=across(x), cy=up(y), r=4.5, class_="mark", title=f"{label}: {real(x)}, {real(y)}")
        for label, x, y in points
    ]
    drawn = (axes(across, up, x_name, y_name), element("g", *dots, class_="series own"))
    return drawing("scatter", f"{y_name} against {x_name} of {len(points)} concepts.", _HEIGHT, *drawn)
