"""Rows that are left standing from the step before are those that this step would have written."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugin.asked import SLOTS, part, steerings
from trimtab.plugin.requests.positions import END
from trimtab.plugin.requests.request import Steering
from trimtab.plugin.steps.batch import ALPHA, NOBODY, SLOT, fill_rows
from trimtab.plugin.steps.decisions import Decisions, SteeredRequest
from trimtab.plugin.steps.entries import TokenRows

# The requests of a step are one of two teams, so that steps repeat; each has tokens before the step and tokens in it.
teams = st.lists(st.none() | steerings(may_decide_once=True), min_size=1, max_size=2)
tokens = st.tuples(st.integers(0, 12), st.sampled_from([1, 1, 1, 2]))
steps = st.lists(st.tuples(st.booleans(), st.tuples(tokens, tokens)), min_size=2, max_size=8)


def team(steerings: list[Steering | None]) -> list[SteeredRequest | None]:
    return [None if steering is None else SteeredRequest(steering, SLOTS) for steering in steerings]


def check_step(
    rows: TokenRows,
    decisions: Decisions,
    batch: list[SteeredRequest | None],
    computed: list[int],
    scheduled: list[int],
) -> None:
    """Do a step as `SteeringTables` does, and hold its rows to those of a step without a past."""
    before, new = np.array(computed, np.int32), np.array(scheduled, np.int32)
    decisions.place(batch)
    packed = [NOBODY if request is None else request.packed for request in batch]
    expected = np.zeros((sum(scheduled), 3, 4), np.int32)
    fill_rows(expected, packed, before, new)
    rows.fill(batch, before, new)
    decisions.note_made(batch, before + new)
    acting = expected[:, SLOT] != 0
    found = rows.rows.numpy()
    assert np.array_equal(found[: len(expected), SLOT], expected[:, SLOT])
    for field in (1, 2):
        assert np.array_equal(found[: len(expected), field][acting], expected[:, field][acting])
    assert not found[len(expected) :].any()


@settings(max_examples=300)
@given(teams, teams, steps)
def test_every_step_has_its_own_rows_whatever_came_before(
    home: list[Steering | None],
    guests: list[Steering | None],
    played: list[tuple[bool, tuple[tuple[int, int], tuple[int, int]]]],
) -> None:
    rows, decisions = TokenRows(16), Decisions([], 17)
    at_home, away = team(home), team(guests)
    for is_home, counts in played:
        batch = at_home if is_home else away
        computed, scheduled = zip(*counts[: len(batch)], strict=True)
        check_step(rows, decisions, batch, list(computed), list(scheduled))


@settings(max_examples=150)
@given(teams, st.integers(0, 4), st.lists(st.just(1) | st.integers(1, 3), min_size=4, max_size=16))
def test_the_rows_of_a_whole_answer_are_right_at_every_step(
    steerings: list[Steering | None], prompt: int, sizes: list[int]
) -> None:
    """Decode steps in a row, in which spans begin and end and gates decide."""
    rows, decisions, batch = TokenRows(16), Decisions([], 17), team(steerings)
    reached = prompt
    for size in sizes:
        check_step(rows, decisions, batch, [reached] * len(batch), [size] * len(batch))
        reached += size


def test_a_decode_step_like_the_one_before_writes_nothing() -> None:
    rows, batch = TokenRows(4), team([Steering((part("a", spans=((2, END),)),))])
    one = np.ones(1, np.int32)
    rows.fill(batch, one * 5, one)
    rows.rows[0, SLOT, 0] = 99  # a write would put it right
    rows.fill(batch, one * 6, one)
    assert int(rows.rows[0, SLOT, 0]) == 99
    rows.fill(batch, one * 1, one)  # a step back, before the span
    assert not rows.rows.any()


def test_rows_beyond_the_steps_own_are_cleared_for_a_padded_batch() -> None:
    rows = TokenRows(8)
    pointer, everywhere = rows.rows.data_ptr(), Steering((part("a"),))
    for steering, scheduled in ((everywhere, 6), (everywhere, 2), (None, 5), (everywhere, 8), (None, 1)):
        rows.fill(team([steering]), np.zeros(1, np.int32), np.array([scheduled]))
        assert (rows.rows[:, SLOT, 0] != 0).tolist() == [steering is not None and row < scheduled for row in range(8)]
    assert rows.rows.data_ptr() == pointer  # a CUDA graph reads at this address


def test_an_empty_step_leaves_no_rows() -> None:
    rows = TokenRows(4)
    rows.fill(team([Steering((part("a"),))]), np.zeros(1, np.int32), np.array([3]))
    rows.fill([], np.zeros(0, np.int32), np.zeros(0, np.int32))
    assert not rows.rows.any()


def test_while_probing_one_slot_acts_everywhere_and_steps_change_nothing() -> None:
    rows, batch, one = TokenRows(4), team([Steering((part("a"),))]), np.ones(1, np.int32)
    rows.fill(batch, one, one)
    with rows.probing(9):
        rows.fill(batch, one * 2, one)
        rows.fill([None], one, one)
        assert rows.rows[:, SLOT].tolist() == [[9, 0, 0, 0]] * 4
        assert rows.rows[:, ALPHA].view(torch.float32).tolist() == [[1.0, 0.0, 0.0, 0.0]] * 4
    assert not rows.rows.any()
    rows.fill(batch, one * 3, one)  # nothing is taken to stand there from before
    assert rows.rows[:, SLOT, 0].tolist() == [1, 0, 0, 0]
