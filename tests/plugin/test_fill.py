"""Rows that are left standing from the step before are those that this step would have written."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugin.asked import SLOTS, part, steerings
from trimtab.plugin.requests.positions import END
from trimtab.plugin.requests.request import Steering
from trimtab.plugin.steps.batch import ALPHA, SLOT, fill_entries, whole
from trimtab.plugin.steps.decisions import Decisions, SteeredRequest
from trimtab.plugin.steps.entries import TokenEntries

# The requests of a step are one of two teams, so that steps repeat; each has tokens before the step and tokens in it.
teams = st.lists(st.none() | steerings(may_decide_once=True), min_size=1, max_size=2)
tokens = st.tuples(st.integers(0, 12), st.sampled_from([1, 1, 1, 2]))
steps = st.lists(st.tuples(st.booleans(), st.tuples(tokens, tokens)), min_size=2, max_size=8)


def team(steerings: list[Steering | None]) -> list[SteeredRequest | None]:
    return [None if steering is None else SteeredRequest(steering, SLOTS) for steering in steerings]


def check_step(
    entries: TokenEntries,
    decisions: Decisions,
    batch: list[SteeredRequest | None],
    computed: list[int],
    scheduled: list[int],
) -> None:
    """Do a step as `SteeringTables` does, and hold its entries to those of a step without a past."""
    before, new = np.array(computed, np.int32), np.array(scheduled, np.int32)
    decisions.assign(batch)
    expected = np.zeros((sum(scheduled), 3, 4), np.int32)
    fill_entries(whole(expected), batch, before, new)
    entries.fill(batch, before, new)
    decisions.note_made(batch, before + new)
    acting = expected[:, SLOT] != 0
    found = entries.entries.numpy()
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
    entries, decisions = TokenEntries(16), Decisions([], 17)
    at_home, away = team(home), team(guests)
    for is_home, counts in played:
        batch = at_home if is_home else away
        computed, scheduled = zip(*counts[: len(batch)], strict=True)
        check_step(entries, decisions, batch, list(computed), list(scheduled))


@settings(max_examples=150)
@given(teams, st.integers(0, 4), st.lists(st.just(1) | st.integers(1, 3), min_size=4, max_size=16))
def test_the_rows_of_a_whole_answer_are_right_at_every_step(
    steerings: list[Steering | None], prompt: int, sizes: list[int]
) -> None:
    """Decode steps in a row, in which spans begin and end and gates decide."""
    entries, decisions, batch = TokenEntries(16), Decisions([], 17), team(steerings)
    reached = prompt
    for size in sizes:
        check_step(entries, decisions, batch, [reached] * len(batch), [size] * len(batch))
        reached += size


def test_a_decode_step_like_the_one_before_writes_nothing() -> None:
    entries, batch = TokenEntries(4), team([Steering((part("a", spans=((2, END),)),))])
    one = np.ones(1, np.int32)
    entries.fill(batch, one * 5, one)
    entries.entries[0, SLOT, 0] = 99  # a write would put it right
    entries.fill(batch, one * 6, one)
    assert int(entries.entries[0, SLOT, 0]) == 99
    entries.fill(batch, one * 1, one)  # a step back, before the span
    assert not entries.entries.any()


def test_rows_beyond_the_steps_own_are_cleared_for_a_padded_batch() -> None:
    entries = TokenEntries(8)
    pointer, everywhere = entries.entries.data_ptr(), Steering((part("a"),))
    for steering, scheduled in ((everywhere, 6), (everywhere, 2), (None, 5), (everywhere, 8), (None, 1)):
        entries.fill(team([steering]), np.zeros(1, np.int32), np.array([scheduled]))
        assert (entries.entries[:, SLOT, 0] != 0).tolist() == [
            steering is not None and entry < scheduled for entry in range(8)
        ]
    assert entries.entries.data_ptr() == pointer  # a CUDA graph reads at this address


def test_an_empty_step_leaves_no_rows() -> None:
    entries = TokenEntries(4)
    entries.fill(team([Steering((part("a"),))]), np.zeros(1, np.int32), np.array([3]))
    entries.fill([], np.zeros(0, np.int32), np.zeros(0, np.int32))
    assert not entries.entries.any()


def test_while_probing_one_slot_acts_on_every_second_token_and_steps_change_nothing() -> None:
    entries, batch, one = TokenEntries(4), team([Steering((part("a"),))]), np.ones(1, np.int32)
    entries.fill(batch, one, one)
    with entries.probing(9):
        entries.fill(batch, one * 2, one)
        entries.fill([None], one, one)
        assert entries.entries[:, SLOT].tolist() == [[9, 0, 0, 0], [0] * 4] * 2
        assert entries.entries[:, ALPHA].view(torch.float32).tolist() == [[1.0, 0.0, 0.0, 0.0], [0.0] * 4] * 2
    assert not entries.entries.any()
    entries.fill(batch, one * 3, one)  # nothing is taken to stand there from before
    assert entries.entries[:, SLOT, 0].tolist() == [1, 0, 0, 0]


def test_what_the_check_at_start_sees_came_by_the_way_of_a_steps_entries() -> None:
    entries = TokenEntries(4)
    entries.entries = entries.entries.clone()  # as if torch had moved it: steps would not arrive any more
    with entries.probing(9):
        assert not entries.entries.any()
