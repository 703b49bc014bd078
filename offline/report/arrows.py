"""Where a shift carries concepts, in the plane: an arrow for each, and a ring where its match lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from ..findings import ConceptShift
from .numbers import real
from .svg import WIDTH, Scale, clipped, drawing, element, text

__all__ = ["arrows"]

_TALL, _EDGE = 420, 26
_LETTER, _LINE = 6.3, 13  # units that a label's letter and line take up

Box = tuple[float, float, float, float]


def arrows(concepts: Sequence[ConceptShift]) -> Markup:
    """Lengths and angles are those of the projection: both axes have one scale. The page holds the marker `tip`."""
    x, y = _plane([point for one in concepts for point in (one.at, one.shifted, one.match_at)])
    frame = element("rect", x=0.5, y=0.5, width=WIDTH - 1, height=_TALL - 1, rx=6, class_="frame")
    drawn = [frame]
    for one in concepts:
        (x0, y0), (x1, y1), (x2, y2) = ((x(a), y(b)) for a, b in (one.at, one.shifted, one.match_at))
        title = f"{one.label} → {one.match}: cosine {real(one.cosine_before)} before, {real(one.cosine_after)} after"
        tie = element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="tie")
        ring = element("circle", cx=x2, cy=y2, r=4.5, class_="ring")
        arrow = element("line", x1=x0, y1=y0, x2=x1, y2=y1, class_="mark arrow", marker_end="url(#tip)", title=title)
        dot = element("circle", cx=x0, cy=y0, r=3.5, class_="dot", title=title)
        drawn.append(element("g", tie, ring, arrow, dot, class_="series own"))
    taken = [(x(a) - 4, y(b) - 4, x(a) + 4, y(b) + 4) for one in concepts for a, b in (one.at, one.shifted)]
    drawn += _labels([(clipped(one.label, 14), x(one.at[0]), y(one.at[1])) for one in concepts], taken)
    alt = f"{len(concepts)} concepts of the original, where the shift carries each, and its match, in a 2-D projection."
    return drawing("arrows", alt, _TALL, *drawn)


def _plane(points: Sequence[tuple[float, float]]) -> tuple[Scale, Scale]:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    width, height = WIDTH - 2 * _EDGE, _TALL - 2 * _EDGE
    half = max((max(xs) - min(xs)) / width, (max(ys) - min(ys)) / height, 1e-9) / 2
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    across = Scale(middle_x - half * width, middle_x + half * width, _EDGE, WIDTH - _EDGE)
    return across, Scale(middle_y - half * height, middle_y + half * height, _TALL - _EDGE, _EDGE)


def _labels(wanted: Iterable[tuple[str, float, float]], taken: list[Box]) -> list[Markup]:
    """Each label beside its arrow, where it covers nothing; without room only the tooltip shows it."""
    placed = []
    for label, x, y in wanted:
        wide = _LETTER * len(label)
        starts = ((x + 8, y + 4), (x - 8 - wide, y + 4), (x - wide / 2, y - 9), (x - wide / 2, y + 18))
        for left, base in starts:
            box = (left, base - _LINE + 3, left + wide, base + 3)
            if _inside(box) and not any(_cover(box, other) for other in taken):
                taken.append(box)
                placed.append(text(left, base, label, "label haloed"))
                break
    return placed


def _inside(box: Box) -> bool:
    return box[0] > 2 and box[1] > 2 and box[2] < WIDTH - 2 and box[3] < _TALL - 2


def _cover(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
