"""What a worker keeps of a request: its entry at every position, packed once so that a step has only to join it.

Most requests of most steps decode one more token far inside their last segment. A step joins the records of its batch
and reads them as one array, without a look at any single request.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import xor

import numpy as np

from trimtab.vectors.asked import MOST_PROFILES

from ..requests.positions import END
from ..requests.request import Steering

__all__ = ["ENTRY", "SEGMENT", "UNSTEERED", "Segments", "segments_of"]

ENTRY = np.dtype((np.void, 4 * 3 * MOST_PROFILES))
"""An entry as one value, which numpy copies as a whole."""

SEGMENT = np.dtype(
    [
        ("entry", ENTRY),
        ("start", np.int32),
        ("end", np.int32),
        ("siblings", np.int32),  # how many segments the request has
        ("acts", np.bool_),  # whether the entry has a slot
        ("undecided", np.bool_),  # whether a gate of the request has still to decide
    ],
    align=True,
)
"""Positions start ≤ p < end of a request, which all have the same entry."""

# How both are packed without numpy, which takes longer for so few numbers.
_PACKED_ENTRY = struct.Struct(f"={MOST_PROFILES}i{MOST_PROFILES}f{MOST_PROFILES}i")
_AFTER_ENTRY = struct.Struct("=3i??2x")

_NOTHING = (0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class Segments:
    """What a worker keeps of a request: its entry at every position."""

    each: bytes
    """SEGMENT [S], ascending, from position 0 to END without a gap."""
    last: bytes
    """The last of them."""


def segments_of(steering: Steering, slots: Mapping[str, int], decisions: Sequence[int]) -> Segments:
    """What a worker keeps of a request.

    Args:
        slots: profile digest → slot of the tables (≥ 1).
        decisions: for each part, 0 where the gate decides at every token; else the decision slot d ≥ 1, or -d while
            the gate has not decided.
    """
    cells = [
        (slots[part.digest], part.alpha, decision) for part, decision in zip(steering.parts, decisions, strict=True)
    ]
    changes = {0: 0}  # position → bits of the parts that begin or end to act there
    for number, part in enumerate(steering.parts):
        for bound in chain.from_iterable(part.spans):
            changes[bound] = changes.get(bound, 0) ^ 1 << number
    changes.pop(END, None)
    starts = sorted(changes)
    acting = list(accumulate((changes[start] for start in starts), xor))
    entries = {bits: _packed_entry(cells, bits) for bits in set(acting)}
    undecided = min(decisions) < 0
    each = [
        entries[bits] + _AFTER_ENTRY.pack(start, end, len(starts), bits != 0, undecided)
        for bits, start, end in zip(acting, starts, [*starts[1:], END], strict=True)
    ]
    return Segments(b"".join(each), each[-1])


def _packed_entry(cells: Sequence[tuple[int, float, int]], acting: int) -> bytes:
    """The entry in which those parts act whose bits are set."""
    shown = [cell if acting >> number & 1 else _NOTHING for number, cell in enumerate(cells)]
    fields = zip(*shown, *[_NOTHING] * (MOST_PROFILES - len(shown)), strict=True)
    return _PACKED_ENTRY.pack(*chain.from_iterable(fields))


UNSTEERED = bytes(ENTRY.itemsize) + _AFTER_ENTRY.pack(0, END, 1, False, False)
"""The only segment of a request on which nothing acts."""
