"""What is measured: which engine, steered how, is held against which, with how many requests at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.profiles import COARSE, FINE_K20, FINE_K64, mixed
from bench.served import Steering

__all__ = [
    "CONCURRENCY",
    "FULL",
    "HEADLINE",
    "OTHERS",
    "OVER_COARSE",
    "QUICK",
    "SIDES",
    "TARGETS",
    "Case",
    "Side",
    "Size",
    "cases",
]

CONCURRENCY, OTHERS = 8, (1, 32)
OVER_COARSE = "profiles256_over_coarse"
TARGETS = {"idle": 0.99, "coarse": 0.98, "fine_k20": 0.97, OVER_COARSE: 0.98}
"""Of the throughput's ratio, by the upper end of its interval."""


@dataclass(frozen=True)
class Side:
    """An engine by its name, and the steering of each of n requests."""

    engine: str
    steerings: Callable[[int], list[Steering]]


@dataclass(frozen=True)
class Case:
    """`other` over `base`, with so many requests at once, in so many pairs."""

    key: str
    base: Side
    other: Side
    concurrency: int
    pairs: int


@dataclass(frozen=True)
class Size:
    """How much is measured.

    starts: how often all engines are started, since two starts of the same engine differ a little in speed. pairs: in
    each start, of the headline; elsewhere: at other concurrencies. tokens: of an answer.
    """

    starts: int
    pairs: int
    elsewhere: int
    tokens: int


QUICK = Size(starts=2, pairs=15, elsewhere=1, tokens=64)
FULL = Size(starts=4, pairs=20, elsewhere=8, tokens=128)


def _unsteered(n: int) -> list[Steering]:
    return [None] * n


def _all_by(name: str) -> Callable[[int], list[Steering]]:
    return lambda n: [{"profile": name} for _ in range(n)]


PLAIN = Side("plain", _unsteered)
SIDES = {
    "aa": Side("twin", _unsteered),
    "idle": Side("many", _unsteered),
    "coarse": Side("few", _all_by(COARSE)),
    "fine_k20": Side("few", _all_by(FINE_K20)),
    "fine_k64": Side("few", _all_by(FINE_K64)),
    "mixed32": Side("many", lambda n: list(mixed(n))),
    "profiles256": Side("many", _all_by(COARSE)),
}
HEADLINE = {key: 32 if key == "mixed32" else CONCURRENCY for key in SIDES}
"""Key → how many requests at once."""


def cases(size: Size) -> list[Case]:
    """All of them; those of a size without pairs elsewhere are the headline's alone."""
    found = [
        Case(key, PLAIN, side, n, pairs)
        for key, side in SIDES.items()
        for n in (CONCURRENCY, *OTHERS)
        if (pairs := size.pairs if n == HEADLINE[key] else size.elsewhere)
    ]
    return [*found, Case(OVER_COARSE, SIDES["coarse"], SIDES["profiles256"], CONCURRENCY, size.pairs)]
