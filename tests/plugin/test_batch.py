"""Token rows say, for every row of a step, which slot and which alpha act on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trimtab.plugin.batch import token_rows
from trimtab.plugin.request import Steering

SLOTS = {"a": 1, "b": 2, "c": 5}


@dataclass(frozen=True)
class Part:
    """What a step does of one request: `scheduled` tokens after the `computed` ones that lie behind it."""

    steering: Steering | None
    computed: int
    scheduled: int


def rows_of(batch: list[Part]) -> list[tuple[int, float]]:
    """(slot, alpha) of every row."""
    computed = np.array([part.computed for part in batch], np.int32)
    scheduled = np.array([part.scheduled for part in batch], np.int32)
    slot, alpha = token_rows([part.steering for part in batch], SLOTS, computed, scheduled)
    assert slot.dtype == np.int32
    assert alpha.dtype == np.float32
    assert slot.shape == alpha.shape == (scheduled.sum(),)
    return list(zip(slot.tolist(), alpha.tolist(), strict=True))


def one_by_one(part: Part) -> list[tuple[int, float]]:
    rows = []
    for position in range(part.computed, part.computed + part.scheduled):
        if part.steering is not None and position >= part.steering.first:
            rows.append((SLOTS[part.steering.digest], part.steering.alpha))
        else:
            rows.append((0, 0.0))
    return rows


steerings = st.builds(
    Steering,
    profile=st.just("p"),
    digest=st.sampled_from(sorted(SLOTS)),
    alpha=st.sampled_from([-1.5, 0.25, 1.0, 2.0]),  # exact in float32
    first=st.integers(0, 12),
    kv_key=st.none(),
)
parts = st.builds(Part, st.none() | steerings, st.integers(0, 12), st.integers(0, 9))
batches = st.lists(parts, max_size=6)


@given(batches)
def test_every_row_is_what_a_loop_over_tokens_gives(batch: list[Part]) -> None:
    assert rows_of(batch) == [row for part in batch for row in one_by_one(part)]


@given(batches)
def test_batched_equals_alone(batch: list[Part]) -> None:
    assert rows_of(batch) == [row for part in batch for row in rows_of([part])]


@given(batches, st.permutations(range(6)))
def test_the_rows_follow_the_order_of_the_batch(batch: list[Part], order: list[int]) -> None:
    permuted = [batch[index] for index in order if index < len(batch)]
    assert rows_of(permuted) == [row for part in permuted for row in one_by_one(part)]


def test_two_requests_that_change_places_are_told_apart() -> None:
    weak = Part(Steering("p", "a", 0.25, 0, None), 0, 2)
    strong = Part(Steering("q", "b", 2.0, 0, None), 0, 2)
    assert rows_of([weak, strong]) == [(1, 0.25)] * 2 + [(2, 2.0)] * 2
    assert rows_of([strong, weak]) == [(2, 2.0)] * 2 + [(1, 0.25)] * 2


@given(steerings, st.lists(st.integers(1, 5), min_size=1, max_size=6), batches)
def test_a_request_in_chunks_gets_the_rows_it_gets_in_one_go(
    steering: Steering, chunks: list[int], batchmates: list[Part]
) -> None:
    whole = rows_of([Part(steering, 0, sum(chunks))])
    in_chunks, done = [], 0
    for chunk in chunks:
        step = rows_of([*batchmates, Part(steering, done, chunk)])
        in_chunks += step[len(step) - chunk :]
        done += chunk
    assert in_chunks == whole


@given(steerings, st.integers(1, 20), st.integers(0, 19))
def test_a_preempted_request_that_starts_again_gets_the_same_rows(steering: Steering, total: int, cut: int) -> None:
    # It comes back with its generated tokens as if they were prompt; `first` still counts from the prompt's own length.
    cut = min(cut, total)
    again = rows_of([Part(steering, 0, cut)]), rows_of([Part(steering, 0, total)])
    assert again[1][:cut] == again[0]
    assert again[1][cut:] == rows_of([Part(steering, cut, total - cut)])


@given(st.integers(1, 12), st.integers(0, 12))
def test_answer_steers_the_last_prompt_position_and_every_later_one(prompt: int, generated: int) -> None:
    steering = Steering("p", "a", 1.0, prompt - 1, None)
    steered = [slot != 0 for slot, _ in rows_of([Part(steering, 0, prompt + generated)])]
    assert steered == [False] * (prompt - 1) + [True] * (generated + 1)


@given(batches)
def test_one_request_without_steering_changes_nothing_for_the_others(batch: list[Part]) -> None:
    plain = [replace(part, steering=None) if index == 0 else part for index, part in enumerate(batch)]
    skipped = batch[0].scheduled if batch else 0
    assert rows_of(plain)[:skipped] == [(0, 0.0)] * skipped
    assert rows_of(plain)[skipped:] == rows_of(batch)[skipped:]
