"""The entries of one step: which profiles act on which token of the flattened batch, and how strongly.

Pure: one pass over the batch, none over layers. Entries are made only after the step's batch is final; both model
runners describe the batch by the same arrays. Most requests of most steps decode one more token far inside their last
span, where their entry never changes: it is made once, as bytes, and a step puts those of its batch together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.vectors.asked import MOST_PROFILES

from ..requests.positions import END
from ..requests.request import Steering

__all__ = [
    "ALPHA",
    "DECISION",
    "SLOT",
    "UNSTEERED",
    "Entries",
    "Ints",
    "RequestSpans",
    "decodes",
    "fill_entries",
    "spans_of",
]

Ints = npt.NDArray[np.integer]
Entries = npt.NDArray[np.int32]
"""[T, 3, MOST_PROFILES]: of each token and part the slot (0 where nothing acts), the strength (the bits of a float32)
and the decision (see `spans_of`)."""

# Fields of an entry.
SLOT, ALPHA, DECISION = range(3)


@dataclass(frozen=True, slots=True)
class RequestSpans:
    """What a worker keeps of a request: where its parts act, and its entry once that stays the same."""

    spans: tuple[tuple[int, int, int, npt.NDArray[np.int32]], ...]
    """Start, end and number of a part, and the slot, strength and decision that its entries have there."""
    steady_from: int
    """From this position on, every token has the same entry."""
    entry: bytes
    """That entry, int32 [3, MOST_PROFILES]."""
    acts: bool
    """Whether anything acts there."""
    silent_before: bool
    """Whether nothing acts before `steady_from`."""
    decided: bool
    """Whether no gate has still to decide."""


def spans_of(steering: Steering, slots: Mapping[str, int], decisions: Sequence[int]) -> RequestSpans:
    """What a worker keeps of a request.

    Args:
        slots: profile digest → slot of the tables (≥ 1).
        decisions: for each part, 0 where the gate decides at every token; else the decision slot d ≥ 1, or -d while
            the gate has not decided.
    """
    entry = np.zeros((3, MOST_PROFILES), np.int32)
    spans = []
    for number, (part, decision) in enumerate(zip(steering.parts, decisions, strict=True)):
        values = np.array([slots[part.digest], np.float32(part.alpha).view(np.int32), decision], np.int32)
        spans += [(start, end, number, values) for start, end in part.spans]
        if part.spans[-1][1] >= END:
            entry[:, number] = values
    steady_from = max(start if end >= END else end for start, end, *_ in spans)
    return RequestSpans(
        spans=tuple(spans),
        steady_from=steady_from,
        entry=entry.tobytes(),
        acts=bool(entry.any()),
        silent_before=all(start >= steady_from for start, *_ in spans),
        decided=min(decisions) >= 0,
    )


UNSTEERED = RequestSpans((), 0, bytes(4 * 3 * MOST_PROFILES), acts=False, silent_before=True, decided=True)


def fill_entries(entries: Entries, batch: Sequence[RequestSpans], computed: Ints, scheduled: Ints) -> tuple[int, bool]:
    """Write the entries of one step, T = scheduled.sum().

    Args:
        entries: at least T; the first T are written.
        batch: of each of the N requests.
        computed: int [N], tokens of each request that lie before this step.
        scheduled: int [N], tokens of each request in this step.

    Returns:
        T, or 0 where nothing acts on any token; and whether a later step of one token per request of the same requests
        has the very same entries.
    """
    steady: list[bytes] = []  # the entries of tokens from `steady_from` on, and where they stand
    places: list[int] = []
    others: list[tuple[RequestSpans, int, int, int]] = []
    total, acts, repeats = 0, False, True
    for request, done, new in zip(batch, computed.tolist(), scheduled.tolist(), strict=True):
        if new == 1 and done >= request.steady_from:
            steady.append(request.entry)
            places.append(total)
            acts = acts or request.acts
            repeats = repeats and request.decided
        else:
            repeats = False
            before = min(max(request.steady_from - done, 0), new)
            if before < new:
                steady.append(request.entry * (new - before))
                places += range(total + before, total + new)
                acts = acts or request.acts
            if before and not request.silent_before:
                others.append((request, done, before, total))
        total += new
    filled = np.frombuffer(b"".join(steady), np.int32).reshape(-1, *entries.shape[1:])
    if len(places) == total:
        entries[:total] = filled
    else:
        entries[:total] = 0
        entries[places] = filled
    for request, done, before, at in others:
        for start, end, part, values in request.spans:
            first, last = max(start - done, 0), min(end - done, before)
            if first < last:
                entries[at + first : at + last, :, part] = values
                acts = True
    return (total if acts else 0), repeats


def decodes(computed: Ints, scheduled: Ints, reached: Ints) -> bool:
    """Whether a step takes every request one token further, from `reached` or later. All of them int [N]."""
    return bool((scheduled == 1).all() and (computed >= reached).all())
