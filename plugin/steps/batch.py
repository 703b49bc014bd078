"""This step's token rows: which slots, with which strength, act on which row of the flattened batch.

Pure, one pass over the batch and none over layers. They are made only after the step's batch is final; both model
runners describe the batch by the same arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..requests.positions import END
from ..requests.request import Steering
from .compiled import njit

__all__ = [
    "ALPHA",
    "DECISION",
    "NOBODY",
    "SLOT",
    "Entries",
    "Ints",
    "Rows",
    "decodes",
    "entries_of",
    "fill_rows",
    "pack",
]

Ints = npt.NDArray[np.integer]
Entries = npt.NDArray[np.float64]
"""[E, 7], a row for each span of each part of a request. float64 holds all seven exactly."""
Rows = npt.NDArray[np.int32]
"""[T, 3, MOST_PROFILES]: of each token and part the slot (0 where nothing acts), the strength (the bits of a float32)
and the decision (see `entries_of`)."""

# Fields of an entry. _FIRST: 1 in the first entry of a request. _PART: the place of the part in its request.
_FIRST, _PART, _SLOT, _ALPHA, _DECISION, _START, _END = range(7)
_FIELDS = 7

# Fields of a token row.
SLOT, ALPHA, DECISION = range(3)


def entries_of(steering: Steering, slots: Mapping[str, int], decisions: Sequence[int]) -> Entries:
    """What a worker keeps of a request.

    Args:
        slots: profile digest → slot of the tables (≥ 1).
        decisions: for each part, 0 where the gate decides at every token; else the place d ≥ 1 where its decision is
            kept, or -d while it has not been made.
    """
    entries = np.array(
        [
            (0, number, slots[part.digest], part.alpha, decision, start, end)
            for number, (part, decision) in enumerate(zip(steering.parts, decisions, strict=True))
            for start, end in part.spans
        ],
        dtype=np.float64,
    )
    entries[0, _FIRST] = 1
    return entries


def pack(entries: Entries) -> bytes:
    """A request's entries as bytes: those of a batch are put together by one join, in a tenth of numpy's time."""
    return entries.tobytes()


NOBODY = pack(np.array([[1.0, 0, 0, 0, 0, 0, 0]]))
"""The entries of an unsteered request: a span without positions."""


def fill_rows(rows: Rows, packed: Sequence[bytes], computed: Ints, scheduled: Ints) -> tuple[int, bool]:
    """Write the rows of one step, T = scheduled.sum().

    Args:
        rows: at least T; the first T are written.
        packed: of each request of the batch, see `pack`.
        computed: int [N], tokens of each request that lie before this step.
        scheduled: int [N], tokens of each request in this step.

    Returns:
        T, or 0 where nothing acts on any of them; and whether a later step of one token a request of the same
        requests has the very same rows.
    """
    entries = np.frombuffer(b"".join(packed)).reshape(-1, _FIELDS)
    found: tuple[int, bool] = _fill_rows(rows, entries, computed, scheduled)
    return found


@njit()
def _fill_rows(rows: Rows, entries: Entries, computed: Ints, scheduled: Ints) -> tuple[int, bool]:
    total = scheduled.sum()
    rows[:total] = 0
    strength = entries[:, _ALPHA].astype(np.float32).view(np.int32)
    acts, repeats = False, True
    of, last = -1, 0
    for e in range(len(entries)):
        if entries[e, _FIRST] == 1:
            of += 1
            last += scheduled[of]
            repeats &= scheduled[of] == 1
        reached = computed[of] + scheduled[of]
        begins, ends = int(entries[e, _START]), int(entries[e, _END])
        part, decision = int(entries[e, _PART]), int(entries[e, _DECISION])
        # It is past its end, or inside a span without one, and has decided.
        repeats &= (ends <= computed[of] or (begins <= computed[of] and ends >= END)) and decision >= 0
        # Position p of a request stands at row p + (its last row + 1) − (the positions it has reached).
        for row in range(max(begins, computed[of]) + last - reached, min(ends, reached) + last - reached):
            rows[row, SLOT, part] = int(entries[e, _SLOT])
            rows[row, ALPHA, part] = strength[e]
            rows[row, DECISION, part] = decision
            acts = True
    return (total if acts else 0), repeats


@njit()
def decodes(computed: Ints, scheduled: Ints, reached: Ints) -> bool:
    """Whether a step takes every request one token further, from `reached` or later. All of them int [N].

    One loop, since each of numpy's calls would cost more than all of it.
    """
    for request in range(len(reached)):  # noqa: SIM110
        if scheduled[request] != 1 or computed[request] < reached[request]:
            return False
    return True
