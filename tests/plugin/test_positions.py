"""Every position of a request belongs to the steered ones or it does not: the five choices divide them without gaps."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.plugin.requests.positions import END, Spans, clipped, merged, spans_of
from trimtab.vectors.manifest import Positions

FAR = 40  # beyond every prompt here: positions of the answer

places = st.tuples(st.integers(0, 19), st.integers(1, 6)).map(lambda place: (place[0], place[0] + place[1]))


@st.composite
def prompts(draw: st.DrawFn) -> tuple[int, Spans]:
    """A prompt's length and where its pictures lie."""
    length = draw(st.integers(1, 20))
    cut = [(start, min(end, length)) for start, end in draw(st.lists(places, max_size=4)) if start < length]
    return length, merged(cut)


def positions_in(spans: Spans) -> set[int]:
    return {position for start, end in spans for position in range(start, min(end, FAR))}


def steered(positions: Positions, prompt: tuple[int, Spans]) -> set[int]:
    return positions_in(spans_of(positions, *prompt))


@given(prompts())
def test_answer_and_prompt_are_all_positions_and_share_none(prompt: tuple[int, Spans]) -> None:
    answer, rest = steered("answer", prompt), steered("prompt", prompt)
    assert answer | rest == steered("all", prompt) == set(range(FAR))
    assert not answer & rest


@given(prompts())
def test_answer_begins_at_the_last_prompt_position(prompt: tuple[int, Spans]) -> None:
    assert spans_of("answer", *prompt) == ((prompt[0] - 1, END),)


@given(prompts())
def test_image_and_text_are_the_prompts_positions_and_share_none(prompt: tuple[int, Spans]) -> None:
    image, text = steered("image", prompt), steered("text", prompt)
    assert image | text == set(range(prompt[0]))
    assert not image & text
    assert image == positions_in(prompt[1])


@given(prompts(), st.sampled_from(get_args(Positions)))
def test_spans_ascend_and_never_touch(prompt: tuple[int, Spans], positions: Positions) -> None:
    spans = spans_of(positions, *prompt)
    flat = [bound for span in spans for bound in span]
    assert flat == sorted(set(flat))  # none is empty, and between two of them lies at least one position


@pytest.mark.parametrize(("positions", "prompt"), [("prompt", (1, ())), ("image", (9, ())), ("text", (5, ((0, 5),)))])
def test_positions_that_a_prompt_has_none_of_are_no_spans(positions: Positions, prompt: tuple[int, Spans]) -> None:
    assert spans_of(positions, *prompt) == ()


@given(st.lists(places, max_size=6))
def test_merging_keeps_the_positions_in_spans_that_do_not_touch(spans: list[tuple[int, int]]) -> None:
    found = merged(spans)
    assert positions_in(found) == positions_in(tuple(spans))
    flat = [bound for span in found for bound in span]
    assert flat == sorted(set(flat))


@given(prompts(), st.integers(0, 25), st.integers(0, 8), st.booleans())
def test_clipping_keeps_the_positions_inside_and_counts_them_from_its_start(
    prompt: tuple[int, Spans], start: int, size: int, as_lists: bool
) -> None:
    spans = (*prompt[1], (30, END))
    given_spans = [list(span) for span in spans] if as_lists else spans  # lists, after the wire
    found = clipped(given_spans, start, start + size)
    assert positions_in(found) == {p - start for p in positions_in(spans) if start <= p < start + size}
    assert all(a < b for a, b in found)
