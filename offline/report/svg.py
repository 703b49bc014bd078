"""The few pieces that our charts are made of: elements, scales, axes.

Charts are drawn as inline SVG, 460 units wide, and coloured by the page's style sheet alone: so they follow its light
and dark themes, stay sharp in print and are legible on a telephone. Every text is escaped where it is put in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from markupsafe import Markup

from ..errors import DataError
from .numbers import real

__all__ = [
    "WIDTH",
    "Scale",
    "apart",
    "axes",
    "clipped",
    "drawing",
    "element",
    "path",
    "spanning",
    "text",
    "tick_writer",
]

WIDTH = 460
"""Units: close to the pixels that a chart gets in a column of the page."""

_TICKS = 5
_UNITS = ((1e9, " G"), (1e6, " M"), (1e3, " k"))

Write = Callable[[float], str]


def element(name: str, *inside: str, title: str = "", **attributes: str | float) -> Markup:
    """An SVG element. In attribute names a trailing underscore is dropped; other underscores become hyphens.

    title: what a browser shows where the pointer rests.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value)) for key, value in attributes.items()
    )
    told = (element("title", title),) if title else ()
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, Markup("").join((*told, *inside)))


def drawing(kind: str, alt: str, height: float, *inside: str) -> Markup:
    """A whole chart. alt: what it shows, in words, for those who do not see it."""
    size = f"0 0 {WIDTH} {_short(height)}"
    return element("svg", *inside, viewBox=size, role="img", aria_label=alt, class_="chart", data_chart=kind)


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start", title: str = "") -> Markup:
    """A line of text whose baseline is at y."""
    return element("text", content, title=title, x=x, y=y, class_=class_, text_anchor=anchor)


def path(points: Iterable[tuple[float, float]], **attributes: str) -> Markup:
    """Straight lines through points."""
    return element("path", d="M" + "L".join(f"{_short(x)},{_short(y)}" for x, y in points), **attributes)


def clipped(content: str, longest: int) -> str:
    """A text cut to so many characters, with an ellipsis for the rest."""
    return content if len(content) <= longest else content[: longest - 1].rstrip() + "…"


@dataclass(frozen=True)
class Scale:
    """From values in [low, high] to units in [start, end], linearly, with ticks `step` apart. Calls map one value."""

    low: float
    high: float
    start: float
    end: float
    step: float = 1.0

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> tuple[float, ...]:
        """The multiples of `step` inside."""
        first, last = ceil(self.low / self.step - 1e-9), floor(self.high / self.step + 1e-9)
        return tuple(self.step * i for i in range(first, last + 1))


def spanning(values: Iterable[float], start: float, end: float, rounded: bool = True) -> Scale:
    """A scale that holds all of these values; rounded: from a round value below them to a round value above.

    Raises:
        DataError: they lie too far apart, or too close together for their size, to be drawn.
    """
    known = list(values)
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    if not isfinite(high - low) or high - low <= 1e-12 * max(abs(low), abs(high)):
        raise DataError(
            f"figures from {low:g} to {high:g} cannot be drawn on one axis; look for a broken one among them"
        )
    step = _round_step((high - low) / _TICKS)
    if rounded:
        low, high = step * floor(low / step + 1e-9), step * ceil(high / step - 1e-9)
    return Scale(low, high, start, end, step)


def axes(x: Scale, y: Scale, x_name: str, y_name: str) -> Markup:
    """Light grid lines with their values, x_name below at the right and y_name above at the left."""
    x_write, y_write = tick_writer(x), tick_writer(y)
    drawn = [text(0, y.end - 12, y_name, "axis-name"), text(x.end, y.start + 32, x_name, "axis-name", "end")]
    for value in y.ticks:
        drawn.append(element("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid"))
        drawn.append(text(x.start - 7, y(value) + 4, y_write(value), "tick", "end"))
    for value in x.ticks:
        drawn.append(element("line", x1=x(value), x2=x(value), y1=y.start, y2=y.start + 4, class_="axis"))
        drawn.append(text(x(value), y.start + 17, x_write(value), "tick", "middle"))
    drawn.append(element("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis"))
    return Markup("").join(drawn)


def tick_writer(scale: Scale) -> Write:
    """Writes a scale's ticks with as many decimals as their step needs, and large ones in thousands or millions."""
    largest = max(abs(scale.low), abs(scale.high))
    unit, name = next((one for one in _UNITS if largest >= 10 * one[0]), (1.0, ""))
    decimals = max(0, -floor(log10(scale.step / unit) + 1e-9))
    return lambda value: real(value / unit, decimals) + name


def apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions in the same order as these, each at least `gap` from the next and none moved further than it must."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[tuple[float, int]] = []  # (centre, size) of labels that touch
    for i in order:
        groups.append((wanted[i], 1))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (b, m), (a, n) = groups.pop(), groups.pop()
            groups.append(((a * n + b * m) / (n + m), n + m))
    placed = [centre + gap * (k - (size - 1) / 2) for centre, size in groups for k in range(size)]
    found = [0.0] * len(wanted)
    for i, position in zip(order, placed, strict=True):
        found[i] = position
    return found


def _round_step(rough: float) -> float:
    power = 10.0 ** floor(log10(rough))
    return power * next(step for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))


def _short(value: str | float) -> str:
    if isinstance(value, str):
        return value
    written = f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"
    return "0" if written == "-0" else written
