"""One rule that picks every strength, of vectors and of logit biases alike, on the dev split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

MOST_COLLATERAL = 0.05


@dataclass(frozen=True)
class Point:
    """What one strength does: the share gained of what was wanted, and the share changed of what was not."""

    strength: float
    gained: float
    collateral: float

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def best(curve: Sequence[Point]) -> Point:
    """The point that gains most at ≤ 5 % collateral; where none is that clean, the cleanest. Ties: the weakest."""
    clean = [point for point in curve if point.collateral <= MOST_COLLATERAL]
    if not clean:
        return min(curve, key=lambda point: (point.collateral, -point.gained, point.strength))
    return min(clean, key=lambda point: (-point.gained, point.collateral, point.strength))
