"""Random batches: who comes when, who leaves early, and how much room there is."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A request in a batch. late: the step at which it arrives. abort: the one at which it is taken back."""

    request: int
    late: int = 0
    abort: int | None = None
    priority: int = 0


@dataclass(frozen=True)
class Batch:
    """tokens: the most that a step computes. running: the most requests that run at once. blocks: of the KV cache."""

    number: int
    entries: tuple[Entry, ...]
    tokens: int
    running: int
    blocks: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


TOKENS, RUNNING, BLOCKS = 2048, 64, 640
"""All the room that an engine has."""


def batch(number: int, pool: int, seed: int, *, smallest: int = 8, largest: int = 64) -> Batch:
    """Batch `number` of a series, of requests 0 to pool - 1. A third have little room for tokens, half for KV."""
    rng = random.Random(f"{seed} {number}")
    size, spread = rng.randint(smallest, largest), rng.choice((0, 0, 10, 30))
    entries = []
    for _ in range(size):
        late = rng.randint(0, spread)
        abort = late + rng.randint(1, 20) if rng.random() < 0.08 else None
        entries.append(Entry(rng.randrange(pool), late, abort, rng.randrange(3)))
    return Batch(
        number,
        tuple(entries),
        tokens=rng.choice((TOKENS, TOKENS, rng.choice((32, 48, 100)))),
        running=rng.choice((RUNNING, RUNNING, 16, 7)),
        blocks=rng.choice((BLOCKS, rng.choice((12, 16, 24)))),
    )
