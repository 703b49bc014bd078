"""This step's token rows: which slots, with which strength, act on which row of the flattened batch.

Pure numpy, one pass over the batch and none over layers. It is filled only after the step's batch is final; both model
runners describe the batch by the same arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .positions import END
from .request import MOST_PROFILES, Steering

__all__ = ["ALPHA", "DECISION", "SLOT", "Entries", "Ints", "entries_of", "token_rows"]

Ints = npt.NDArray[np.integer]
Entries = npt.NDArray[np.float64]
"""[6, E], a column for each span of each part of a request. float64 holds them all exactly, so that the entries of a
batch are put together by one call."""

# Rows of Entries. _PART is the place of the part in its request.
_PART, _SLOT, _ALPHA, _DECISION, _START, _END = range(6)

# Fields of a token row.
SLOT, ALPHA, DECISION = range(3)


def entries_of(steering: Steering, slots: Mapping[str, int], decisions: Sequence[int]) -> Entries:
    """What a worker keeps of a request.

    Args:
        slots: profile digest → slot of the tables (≥ 1).
        decisions: for each part, 0 where the gate decides at every token; else the place d ≥ 1 where its decision is
            kept, or -d while it has not been made.
    """
    return np.array(
        [
            (number, slots[part.digest], part.alpha, decision, start, end)
            for number, (part, decision) in enumerate(zip(steering.parts, decisions, strict=True))
            for start, end in part.spans
        ],
        dtype=np.float64,
    ).T


def token_rows(entries: Entries, request: Ints, computed: Ints, scheduled: Ints) -> npt.NDArray[np.int32]:
    """Rows of one step, T = scheduled.sum().

    Args:
        entries: of all steered requests of the batch, side by side.
        request: int [E], the place in the batch of the request that an entry belongs to.
        computed: int [N], tokens of each request that lie before this step.
        scheduled: int [N], tokens of each request in this step.

    Returns:
        int32 [T, 3, MOST_PROFILES]: of each row and part the slot (0 where nothing acts), the strength (the bits of a
        float32) and the decision (see `entries_of`).
    """
    rows = np.zeros((int(scheduled.sum()), 3, MOST_PROFILES), np.int32)
    # Position p of a request whose rows end before row e stands at row p + e − (computed + scheduled).
    reached = (computed + scheduled)[request]
    first = np.maximum(entries[_START], computed[request]).astype(np.int64)
    count = np.minimum(entries[_END], reached).astype(np.int64) - first
    active = count > 0
    if not active.all():
        entries, request, reached, first, count = (
            entries[:, active],
            request[active],
            reached[active],
            first[active],
            count[active],
        )
    first += np.cumsum(scheduled)[request] - reached
    row = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)
    part = np.repeat(entries[_PART].astype(np.int64), count)
    rows[row, SLOT, part] = np.repeat(entries[_SLOT], count)
    rows[row, ALPHA, part] = np.repeat(entries[_ALPHA].astype(np.float32).view(np.int32), count)
    rows[row, DECISION, part] = np.repeat(entries[_DECISION], count)
    return rows


def settled(entries: Entries, request: Ints, computed: Ints) -> bool:
    """Whether a step of one token a request has the rows of every later such step of the same requests.

    That is so when every entry is past its end or inside a span without one, and no decision is pending.
    """
    position = computed[request]
    gone = entries[_END] <= position
    stays = (entries[_START] <= position) & (entries[_END] >= END)
    return bool((gone | stays).all() and (entries[_DECISION] >= 0).all())


def undecided(entries: Entries) -> bool:
    """Whether a gate of this request has yet to decide for the whole answer."""
    return bool((entries[_DECISION] < 0).any())
