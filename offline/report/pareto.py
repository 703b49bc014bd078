"""Gain against collateral: what a steering reaches, and what it costs elsewhere, over layers and strengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..findings import Measured, SweepPoint
from .numbers import measured
from .svg import WIDTH, Scale, apart, axes, drawing, element, path, spanning, text

__all__ = ["Plane", "pareto"]

_HEIGHT = 320


@dataclass(frozen=True)
class Plane:
    """Collateral across and gain up, in percent; shared by the charts of one sweep."""

    x: Scale
    y: Scale

    @classmethod
    def of(cls, points: Sequence[SweepPoint]) -> Plane:
        """Holds every point, the intervals of the tested ones, and zero."""
        tested = [one for one in points if one.split == "test"]
        across = [_cost(one).value for one in points] + [_cost(one).high for one in tested]
        up = [one.gained.value for one in points] + [end for one in tested for end in (one.gained.low, one.gained.high)]
        x = spanning([0.0, *(100 * share for share in across)], 50, WIDTH - 52)
        return cls(x, spanning([0.0, *(100 * share for share in up)], _HEIGHT - 44, 28))

    def at(self, collateral: float, gained: float) -> tuple[float, float]:
        """Where a pair of shares lies."""
        return self.x(100 * collateral), self.y(100 * gained)

    def of_point(self, one: SweepPoint) -> tuple[float, float]:
        """Where a setting lies."""
        return self.at(_cost(one).value, one.gained.value)


def pareto(points: Sequence[SweepPoint], plane: Plane) -> Markup:
    """One series: per layer a line through its strengths on dev, the chosen one ringed; test points with intervals."""
    layers = sorted({one.layer for one in points})
    drawn = [axes(plane.x, plane.y, "collateral change, %", "gained, %")]
    ends: dict[int, tuple[float, float]] = {}
    for place, layer in enumerate(layers, 1):
        dev = sorted((one for one in points if one.layer == layer and one.split == "dev"), key=lambda one: one.alpha)
        if dev:
            drawn.append(_line(dev, plane, 40 + 60 * place / len(layers)))
            ends[layer] = plane.of_point(dev[-1])
    drawn += _line_names(ends)
    for one in points:
        if one.chosen and one.split == "dev":
            x, y = plane.of_point(one)
            drawn.append(element("circle", cx=x, cy=y, r=8, class_="ring chosen"))
    drawn += [_tested(one, plane) for one in points if one.split == "test"]
    return drawing("pareto", _in_words(points), _HEIGHT, *drawn)


def _line(dev: Sequence[SweepPoint], plane: Plane, deep: float) -> Markup:
    places = [plane.of_point(one) for one in dev]
    dots = [
        element("circle", cx=x, cy=y, r=3, class_="mark dev", title=_told(one))
        for one, (x, y) in zip(dev, places, strict=True)
    ]
    return element("g", path(places, class_="line"), *dots, class_="series depth", style=f"--deep:{deep:.0f}%")


def _tested(one: SweepPoint, plane: Plane) -> Markup:
    x, y = plane.of_point(one)
    left, bottom = plane.at(_cost(one).low, one.gained.low)
    right, top = plane.at(_cost(one).high, one.gained.high)
    wide = element("line", x1=left, x2=right, y1=y, y2=y, class_="interval")
    tall = element("line", x1=x, x2=x, y1=bottom, y2=top, class_="interval")
    corners = [(x, y - 5.5), (x + 5.5, y), (x, y + 5.5), (x - 5.5, y), (x, y - 5.5)]
    return element("g", wide, tall, path(corners, class_="mark test", title=_told(one)), class_="series own")


def _line_names(ends: dict[int, tuple[float, float]]) -> list[Markup]:
    heights = apart([y + 4 for _, y in ends.values()], 14)
    return [
        text(x + 8, y, f"layer {layer}", "label haloed")
        for (layer, (x, _)), y in zip(ends.items(), heights, strict=True)
    ]


def _told(one: SweepPoint) -> str:
    told = f"layer {one.layer}, α = {one.alpha:g}, {one.split}{', chosen' if one.chosen else ''}"
    return f"{told}: gained {measured(one.gained, True)}; collateral {measured(_cost(one), True)}"


def _cost(one: SweepPoint) -> Measured:
    assert one.collateral is not None  # a point without has no place in the plane, and is not drawn
    return one.collateral


def _in_words(points: Sequence[SweepPoint]) -> str:
    pointed = [one for one in points if one.chosen or one.split == "test"]
    return f"Gain against collateral change of {len(points)} settings. " + " ".join(f"{_told(one)}." for one in pointed)
