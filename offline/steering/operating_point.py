"""Gain against collateral change: the Pareto front, and one rule that picks an operating point on a dev split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

__all__ = ["MOST_COLLATERAL", "Point", "best", "front"]

MOST_COLLATERAL = 0.05


@dataclass(frozen=True)
class Point:
    """What one strength does: the share gained of what was wanted, and the share changed of what was not.

    collateral: infinity where nothing was there that should stay, so that no rule takes the unknown for zero.
    """

    strength: float
    gained: float
    collateral: float

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


P = TypeVar("P", bound=Point)


def best(points: Sequence[P], most_collateral: float = MOST_COLLATERAL) -> P:
    """The point that gains most among those with at most `most_collateral`; if there is none, that with the least.

    Of equal points the one with the smallest strength is taken.
    """
    clean = [point for point in points if point.collateral <= most_collateral]
    if not clean:
        return min(points, key=lambda point: (point.collateral, -point.gained, point.strength))
    return min(clean, key=lambda point: (-point.gained, point.collateral, point.strength))


def front(points: Sequence[P]) -> list[P]:
    """The Pareto front: the points that no other point beats in gain and collateral, least collateral first.

    Of points that are equal in both, only the one with the smallest strength is kept.
    """
    found: list[P] = []
    for point in sorted(points, key=lambda point: (point.collateral, -point.gained, point.strength)):
        if not found or point.gained > found[-1].gained:
            found.append(point)
    return found
