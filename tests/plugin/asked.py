"""Steered requests made at random, and what a slow loop over their positions says of them."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from trimtab.plugin.requests.positions import END, Spans
from trimtab.plugin.requests.request import Part, Steering

SLOTS = {"a": 1, "b": 2, "c": 5, "d": 3, "e": 7}


def part(digest: str = "a", alpha: float = 1.0, spans: Spans = ((0, END),), *, once: bool = False) -> Part:
    return Part(digest, alpha, spans, f"{digest} {alpha}", once)


def once_from(digest: str, first: int, alpha: float = 1.0) -> Part:
    """One whose gate decides at `first` for the whole answer."""
    return part(digest, alpha, ((first, END),), once=True)


def _pairs(bounds: list[int], endless: bool) -> Spans:
    pairs = list(zip(sorted(bounds)[::2], sorted(bounds)[1::2], strict=False))
    return tuple([*pairs[:-1], (pairs[-1][0], END)] if endless else pairs)


spans = st.builds(_pairs, st.lists(st.integers(0, 14), min_size=2, max_size=6, unique=True), st.booleans())
alphas = st.sampled_from([-1.5, 0.25, 1.0, 2.0])  # exact in float32


@st.composite
def steerings(draw: st.DrawFn, *, may_decide_once: bool = False) -> Steering:
    digests = draw(st.lists(st.sampled_from(sorted(SLOTS)), min_size=1, max_size=4, unique=True))
    answer = draw(st.integers(0, 8))  # the last prompt position is the same for all parts of a request
    parts = []
    for digest in sorted(digests):
        if may_decide_once and draw(st.booleans()):
            parts.append(once_from(digest, answer, draw(alphas)))
        else:
            parts.append(part(digest, draw(alphas), draw(spans)))
    return Steering(tuple(parts))


def acts_at(one: Part, position: int) -> bool:
    return any(start <= position < end for start, end in one.spans)


Cell = tuple[int, float, int]


def row_at(steering: Steering | None, decisions: Sequence[int], position: int) -> list[Cell]:
    """(slot, alpha, decision) of each of four parts at a position."""
    cells: list[Cell] = [(0, 0.0, 0)] * 4
    if steering is not None:
        for number, one in enumerate(steering.parts):
            if acts_at(one, position):
                cells[number] = (SLOTS[one.digest], one.alpha, decisions[number])
    return cells
