"""Entries say, for every token of a step, which slots act on it, how strongly and by whose decision."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.plugin.asked import SLOTS, Cell, part, row_at, steerings
from trimtab.plugin.requests.positions import END
from trimtab.plugin.requests.request import Steering
from trimtab.plugin.steps.batch import ALPHA, DECISION, SLOT, fill_entries, whole
from trimtab.plugin.steps.segments import segments_of


@dataclass(frozen=True)
class Share:
    """What a step does of one request: `scheduled` tokens after the `computed` ones that lie behind it."""

    steering: Steering | None
    decisions: tuple[int, ...]
    computed: int
    scheduled: int


class Held:
    """A request whose gates have decided so."""

    def __init__(self, steering: Steering, decisions: tuple[int, ...]) -> None:
        self.segments = segments_of(steering, SLOTS, decisions)


def entries_of(batch: list[Share]) -> list[list[Cell]]:
    """(slot, alpha, decision) of every part of every row."""
    held = [None if share.steering is None else Held(share.steering, share.decisions) for share in batch]
    computed = np.array([share.computed for share in batch], np.int32)
    scheduled = np.array([share.scheduled for share in batch], np.int32)
    total = int(scheduled.sum())
    rows = np.full((total + 2, 3, 4), 99, np.int32)
    used, _ = fill_entries(whole(rows), held, computed, scheduled)
    assert used == (total if rows[:total, SLOT].any() else 0)
    assert (rows[total:] == 99).all()
    rows = rows[:total]
    alpha = rows[:, ALPHA].view(np.float32)
    cells = zip(rows[:, SLOT].tolist(), alpha.tolist(), rows[:, DECISION].tolist(), strict=True)
    return [list(zip(*row, strict=True)) for row in cells]


def one_by_one(share: Share) -> list[list[Cell]]:
    reached = share.computed + share.scheduled
    return [row_at(share.steering, share.decisions, position) for position in range(share.computed, reached)]


decisions = st.tuples(*[st.integers(-9, 9)] * 4)


@st.composite
def shares(draw: st.DrawFn) -> Share:
    steering = draw(st.none() | steerings())
    chosen = draw(decisions)[: 0 if steering is None else len(steering.parts)]
    return Share(steering, chosen, draw(st.integers(0, 16)), draw(st.integers(0, 9)))


batches = st.lists(shares(), max_size=6)


@given(batches)
def test_every_row_is_what_a_loop_over_tokens_gives(batch: list[Share]) -> None:
    assert entries_of(batch) == [row for share in batch for row in one_by_one(share)]


@given(batches)
def test_batched_equals_alone(batch: list[Share]) -> None:
    assert entries_of(batch) == [row for share in batch for row in entries_of([share])]


@given(batches, st.permutations(range(6)))
def test_the_rows_follow_the_order_of_the_batch(batch: list[Share], order: list[int]) -> None:
    permuted = [batch[index] for index in order if index < len(batch)]
    assert entries_of(permuted) == [row for share in permuted for row in one_by_one(share)]


@given(steerings(), decisions, st.lists(st.integers(1, 5), min_size=1, max_size=6), batches)
def test_a_request_in_chunks_gets_the_rows_it_gets_in_one_go(
    steering: Steering, chosen: tuple[int, ...], chunks: list[int], batchmates: list[Share]
) -> None:
    chosen = chosen[: len(steering.parts)]
    whole = entries_of([Share(steering, chosen, 0, sum(chunks))])
    in_chunks, done = [], 0
    for chunk in chunks:
        step = entries_of([*batchmates, Share(steering, chosen, done, chunk)])
        in_chunks += step[len(step) - chunk :]
        done += chunk
    assert in_chunks == whole


@given(steerings(), st.integers(1, 20), st.integers(0, 19))
def test_a_preempted_request_that_starts_again_gets_the_same_rows(steering: Steering, total: int, cut: int) -> None:
    # It comes back with its generated tokens as if they were prompt; spans still count from the prompt's own length.
    cut, none = min(cut, total), (0,) * len(steering.parts)
    before, again = entries_of([Share(steering, none, 0, cut)]), entries_of([Share(steering, none, 0, total)])
    assert again[:cut] == before
    assert again[cut:] == entries_of([Share(steering, none, cut, total - cut)])


@given(batches)
def test_one_request_without_steering_changes_nothing_for_the_others(batch: list[Share]) -> None:
    plain = [replace(share, steering=None) if index == 0 else share for index, share in enumerate(batch)]
    skipped = batch[0].scheduled if batch else 0
    assert entries_of(plain)[:skipped] == [[(0, 0.0, 0)] * 4] * skipped
    assert entries_of(plain)[skipped:] == entries_of(batch)[skipped:]


def test_a_span_goes_on_to_the_longest_answer_there_is() -> None:
    far = 2**31 - 2**10
    assert entries_of([Share(Steering((part("a"),)), (0,), far, 1)])[0][0] == (1, 1.0, 0)


def test_strengths_are_float32_and_positions_whole_numbers() -> None:
    far = 2**24 + 1
    steering = Steering((part("a", 0.1, ((3, far), (far + 2, END))), part("e", -1 / 3, ((7, END),))))
    tenth, third = np.array([0.1, -1 / 3], np.float32).tolist()
    around = entries_of([Share(steering, (0, -4), far - 1, 4)])
    assert around == [
        [(1, tenth, 0) if acts else (0, 0.0, 0), (7, third, -4)] + [(0, 0.0, 0)] * 2 for acts in (1, 0, 0, 1)
    ]


@given(steerings(), decisions, st.integers(0, 20))
def test_where_a_step_says_that_it_repeats_every_later_token_has_the_same_entry(
    steering: Steering, chosen: tuple[int, ...], position: int
) -> None:
    chosen = chosen[: len(steering.parts)]
    one = np.ones(1, np.int32)
    _, repeats = fill_entries(whole(np.zeros((1, 3, 4), np.int32)), [Held(steering, chosen)], one * position, one)
    here, *later = (one_by_one(Share(steering, chosen, at, 1)) for at in range(position, position + 20))
    assert repeats == (min(chosen) >= 0 and all(one == here for one in later))
