"""Which positions of a request are steered, as spans counted from the prompt's start.

    answer   the last prompt position and every later one: those that predict an answer token
    prompt   every prompt position but the last
    all      every position
    image    the positions that a picture or a video fills
    text     every other prompt position, the last one included

Spans are fixed at admission, from the prompt's own length. What a step computes of a request (a chunk, a resumed
prompt, drafts of a speculative step) only says which part of the spans falls into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from trimtab.vectors.manifest import Positions

__all__ = ["END", "Span", "Spans", "clipped", "merged", "pictures", "spans_of"]

Span = tuple[int, int]
Spans = tuple[Span, ...]
"""Ascending, disjoint, half-open: start ≤ position < end."""

END = 2**31 - 1
"""The end of a span that goes on for as long as the answer does."""


def spans_of(positions: Positions, prompt_length: int, pictures: Spans) -> Spans:
    """The steered spans of a prompt of ≥ 1 positions whose pictures fill `pictures`; empty where there are none."""
    match positions:
        case "answer":
            return ((prompt_length - 1, END),)
        case "prompt":
            return _without_empty([(0, prompt_length - 1)])
        case "all":
            return ((0, END),)
        case "image":
            return pictures
        case "text":
            starts = [0, *(end for _, end in pictures)]
            ends = [*(start for start, _ in pictures), prompt_length]
            return _without_empty(zip(starts, ends, strict=True))


def merged(spans: Iterable[tuple[int, int]]) -> Spans:
    """The same positions in ascending spans that do not touch."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return tuple(found)


def clipped(spans: Sequence[Sequence[int]], start: int, end: int) -> Spans:
    """What of the spans lies in start ≤ p < end, counted from `start`."""
    return _without_empty((max(a, start) - start, min(b, end) - start) for a, b in spans)


def _without_empty(spans: Iterable[tuple[int, int]]) -> Spans:
    return tuple((start, end) for start, end in spans if start < end)


def pictures(places: Iterable[Any]) -> Spans:
    """The positions that are filled by pictures or videos, of the placeholders in a prompt.

    Leans on vllm/multimodal/inputs: PlaceholderRange, whose mask leaves out the marks between the
    tiles of a picture (0.29 to 0.32). Nothing else than pictures and videos comes with a served architecture.
    """
    spans: list[tuple[int, int]] = []
    for place in places:
        if place.is_embed is None:
            spans.append((place.offset, place.offset + place.length))
        else:
            spans += [(place.offset + int(at), place.offset + int(at) + 1) for at in place.is_embed.nonzero()]
    return merged(spans)
