"""What is measured: which engine, steered how, is held against which, with how many requests at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench import profiles
from bench.engine import Steering

__all__ = [
    "CONCURRENCY",
    "FULL",
    "HEADLINE",
    "OVER_COARSE",
    "PLAIN",
    "QUICK",
    "SIDES",
    "TARGETS",
    "Case",
    "Side",
    "Size",
    "cases",
]

CONCURRENCY = 8
OTHERS = (1, 32)
TARGETS = {"idle": 0.99, "coarse": 0.98, "fine_k20": 0.97, "profiles256_over_coarse": 0.98}
"""Of throughput over plain vLLM's, by the upper end of the interval."""


@dataclass(frozen=True)
class Side:
    """An engine by its name, and the steering of each of n requests."""

    engine: str
    steerings: Callable[[int], list[Steering]]


@dataclass(frozen=True)
class Case:
    """`other` over `base`, with so many requests at once, measured in so many pairs."""

    key: str
    base: Side
    other: Side
    concurrency: int
    pairs: int


@dataclass(frozen=True)
class Size:
    """How much is measured. pairs: of the headline ratios; elsewhere: of those at other concurrencies."""

    pairs: int
    elsewhere: int
    tokens: int


QUICK, FULL = Size(pairs=30, elsewhere=8, tokens=32), Size(pairs=60, elsewhere=30, tokens=128)


def _unsteered(n: int) -> list[Steering]:
    return [None] * n


def _by(name: str) -> Callable[[int], list[Steering]]:
    return lambda n: [{"profile": name} for _ in range(n)]


PLAIN = Side("plain", _unsteered)
SIDES = {
    "aa": PLAIN,
    "aa_twin": Side("twin", _unsteered),
    "idle": Side("many", _unsteered),
    "coarse": Side("few", _by(profiles.COARSE)),
    "fine_k20": Side("few", _by(profiles.FINE_K20)),
    "fine_k64": Side("few", _by(profiles.FINE_K64)),
    "mixed32": Side("many", lambda n: list(profiles.mixed(n))),
    "profiles256": Side("many", _by(profiles.COARSE)),
}
OVER_COARSE = "profiles256_over_coarse"
HEADLINE = ("aa", "idle", "coarse", "fine_k20", "fine_k64", "mixed32", "profiles256")


def cases(size: Size) -> list[Case]:
    """All that is measured. The headline's requests are 8 at once, but for `mixed32`, which is 32 different ones."""
    found = [
        Case(key, PLAIN, side, n, size.pairs if n == (32 if key == "mixed32" else CONCURRENCY) else size.elsewhere)
        for key, side in SIDES.items()
        for n in (CONCURRENCY, *OTHERS)
    ]
    return [*found, Case(OVER_COARSE, SIDES["coarse"], SIDES["profiles256"], CONCURRENCY, size.pairs)]
