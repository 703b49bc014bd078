"""The entries of one step: which profiles act on which token of the flattened batch, and how strongly.

Pure: one pass over the batch, none over layers. Entries are made only after the step's batch is final; both model
runners describe the batch by the same arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .segments import ENTRY, SEGMENT, UNSTEERED, Segments

__all__ = ["ALPHA", "DECISION", "SLOT", "Entries", "Held", "Ints", "Whole", "decodes", "fill_entries", "whole"]

Ints = npt.NDArray[np.integer]
Entries = npt.NDArray[np.int32]
"""[T, 3, MOST_PROFILES]: of each token and part the slot (0 where nothing acts), the strength (the bits of a float32)
and the decision (see `segments_of`)."""
Whole = npt.NDArray[np.void]
"""[T]: the same, each entry one value."""

# Fields of an entry.
SLOT, ALPHA, DECISION = range(3)


def whole(entries: Entries) -> Whole:
    """Contiguous entries as one value each, in the same memory."""
    return np.ndarray(len(entries), ENTRY, buffer=entries)


class Held(Protocol):
    """A request as a worker holds it."""

    segments: Segments


def fill_entries(entries: Whole, batch: Sequence[Held | None], computed: Ints, scheduled: Ints) -> tuple[int, bool]:
    """Write the entries of one step, T = scheduled.sum().

    Args:
        entries: at least T; the first T are written.
        batch: the N requests; None is unsteered.
        computed: int [N], tokens of each request that lie before this step.
        scheduled: int [N], tokens of each request in this step.

    Returns:
        T, or 0 where nothing acts on any token; and whether a later step of one token per request of the same requests
        has the very same entries.
    """
    records = [UNSTEERED if request is None else request.segments.last for request in batch]
    last = np.frombuffer(b"".join(records), SEGMENT)
    early = computed < last["start"]
    if not np.count_nonzero(early) and not np.count_nonzero(scheduled != 1):
        total = len(batch)
        entries[:total] = last["entry"]
        return (total if np.count_nonzero(last["acts"]) else 0), not np.count_nonzero(last["undecided"])
    for number in early.nonzero()[0].tolist():
        if request := batch[number]:
            records[number] = request.segments.each
    segments = np.frombuffer(b"".join(records), SEGMENT)
    read = np.where(early, last["siblings"], 1)  # of each request
    counts = _tokens_in(segments, computed.repeat(read), (computed + scheduled).repeat(read))
    each = np.arange(len(segments)).repeat(counts)
    total = len(each)
    # Every index is within bounds; only this mode writes to `out` itself and not to a copy first.
    segments["entry"].take(each, out=entries[:total], mode="clip")
    return (total if counts.dot(segments["acts"]) else 0), False


def _tokens_in(segments: npt.NDArray[np.void], computed: Ints, reached: Ints) -> Ints:
    """How many tokens of a step, computed ≤ p < reached of each segment's request, lie in the segment: int [S]."""
    counts: Ints = np.minimum(segments["end"], reached) - np.maximum(segments["start"], computed)
    np.maximum(counts, 0, out=counts)
    return counts


def decodes(computed: Ints, scheduled: Ints, reached: Ints) -> bool:
    """Whether a step takes every request one token further, from `reached` or later. All of them int [N]."""
    return not np.count_nonzero(scheduled != 1) and not np.count_nonzero(computed < reached)
