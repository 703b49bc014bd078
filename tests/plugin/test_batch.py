"""Token rows say, for every row of a step, which slots act on it, how strongly and by whose decision."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.plugin.asked import SLOTS, Cell, part, row_at, steerings
from trimtab.plugin.requests.positions import END
from trimtab.plugin.requests.request import Steering
from trimtab.plugin.steps.batch import ALPHA, DECISION, NOBODY, SLOT, entries_of, fill_rows, pack


@dataclass(frozen=True)
class Share:
    """What a step does of one request: `scheduled` tokens after the `computed` ones that lie behind it."""

    steering: Steering | None
    decisions: tuple[int, ...]
    computed: int
    scheduled: int


def rows_of(batch: list[Share]) -> list[list[Cell]]:
    """(slot, alpha, decision) of every part of every row."""
    packed = [
        NOBODY if share.steering is None else pack(entries_of(share.steering, SLOTS, share.decisions))
        for share in batch
    ]
    computed = np.array([share.computed for share in batch], np.int32)
    scheduled = np.array([share.scheduled for share in batch], np.int32)
    total = int(scheduled.sum())
    rows = np.full((total + 2, 3, 4), 99, np.int32)
    used, _ = fill_rows(rows, packed, computed, scheduled)
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
    assert rows_of(batch) == [row for share in batch for row in one_by_one(share)]


@given(batches)
def test_batched_equals_alone(batch: list[Share]) -> None:
    assert rows_of(batch) == [row for share in batch for row in rows_of([share])]


@given(batches, st.permutations(range(6)))
def test_the_rows_follow_the_order_of_the_batch(batch: list[Share], order: list[int]) -> None:
    permuted = [batch[index] for index in order if index < len(batch)]
    assert rows_of(permuted) == [row for share in permuted for row in one_by_one(share)]


@given(steerings(), decisions, st.lists(st.integers(1, 5), min_size=1, max_size=6), batches)
def test_a_request_in_chunks_gets_the_rows_it_gets_in_one_go(
    steering: Steering, chosen: tuple[int, ...], chunks: list[int], batchmates: list[Share]
) -> None:
    chosen = chosen[: len(steering.parts)]
    whole = rows_of([Share(steering, chosen, 0, sum(chunks))])
    in_chunks, done = [], 0
    for chunk in chunks:
        step = rows_of([*batchmates, Share(steering, chosen, done, chunk)])
        in_chunks += step[len(step) - chunk :]
        done += chunk
    assert in_chunks == whole


@given(steerings(), st.integers(1, 20), st.integers(0, 19))
def test_a_preempted_request_that_starts_again_gets_the_same_rows(steering: Steering, total: int, cut: int) -> None:
    # It comes back with its generated tokens as if they were prompt; spans still count from the prompt's own length.
    cut, none = min(cut, total), (0,) * len(steering.parts)
    before, again = rows_of([Share(steering, none, 0, cut)]), rows_of([Share(steering, none, 0, total)])
    assert again[:cut] == before
    assert again[cut:] == rows_of([Share(steering, none, cut, total - cut)])


@given(batches)
def test_one_request_without_steering_changes_nothing_for_the_others(batch: list[Share]) -> None:
    plain = [replace(share, steering=None) if index == 0 else share for index, share in enumerate(batch)]
    skipped = batch[0].scheduled if batch else 0
    assert rows_of(plain)[:skipped] == [[(0, 0.0, 0)] * 4] * skipped
    assert rows_of(plain)[skipped:] == rows_of(batch)[skipped:]


def test_a_span_goes_on_to_the_longest_answer_there_is() -> None:
    far = 2**31 - 2**10
    assert rows_of([Share(Steering((part("a"),)), (0,), far, 1)])[0][0] == (1, 1.0, 0)


def test_entries_hold_strengths_and_positions_exactly() -> None:
    steering = Steering((part("a", 0.1, ((3, 2**24 + 1), (2**24 + 3, END))), part("e", -1 / 3, ((7, END),))))
    assert entries_of(steering, SLOTS, (0, -4)).tolist() == [
        [1, 0, 1, 0.1, 0, 3, 2**24 + 1],
        [0, 0, 1, 0.1, 0, 2**24 + 3, END],
        [0, 1, 7, -1 / 3, -4, 7, END],
    ]
