"""The op adds alpha times the row that the gate chooses, for each part of a token, and nothing to any other token."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import cycle, islice

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tests.plugin.steering_case import FORMS, Case, Slot, expected, expected_counts, make_case, run, run_counting
from trimtab.plugin.model.op import COSINE, COUNT, EUCLIDEAN, NOT_HERE, steer
from trimtab.plugin.steps.batch import ALPHA, DECISION, SLOT
from trimtab.vectors.nearest import half_squares

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def several(limits: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[float, ...]]:
    return st.lists(limits | st.just(math.inf), min_size=1, max_size=3).map(tuple)


counts = st.sampled_from([None, 0, 0, 1, 2, 3, 9, 256])
slots = st.one_of(
    st.builds(Slot, counts),
    st.builds(Slot, counts, st.just(EUCLIDEAN), several(st.integers(0, 60).map(lambda quarters: quarters / 4))),
    st.builds(Slot, counts, st.just(COSINE), several(st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0, 2.0]))),
)
cases = st.builds(
    make_case,
    st.integers(0, 2**32 - 1),
    tokens=st.integers(0, 7),
    size=st.integers(1, 9),
    slots=st.lists(slots, max_size=4),
    dtype=st.sampled_from(DTYPES),
    parts=st.integers(1, 4),
    form=st.sampled_from(FORMS),
)


def equal(one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def with_alphas(case: Case, alphas: torch.Tensor) -> Case:
    tokens = case.tokens.clone()
    tokens[:, ALPHA] = alphas.float().view(torch.int32)
    return replace(case, tokens=tokens)


def alphas_of(case: Case) -> torch.Tensor:
    return case.tokens[:, ALPHA].contiguous().view(torch.float32)


BESIDE_ZERO = make_case(1, tokens=1, size=1, slots=[Slot(2, COSINE, (math.inf,))], dtype=torch.float32, parts=1)
"""Nearest is a centroid of zeros, which has no cosine, and no limit either."""


@given(cases)
@example(BESIDE_ZERO)
def test_every_token_gets_what_a_loop_over_tokens_gives_it(case: Case) -> None:
    answer = run(case)
    assert answer[0].dtype == case.hidden.dtype
    assert answer[0].shape == case.hidden.shape
    assert equal(answer, expected(case))


@given(cases)
def test_an_unsteered_token_and_an_alpha_of_zero_get_exact_zeros(case: Case) -> None:
    delta, _, _ = run(case)
    assert not delta[(case.tokens[: len(delta), SLOT] == 0).all(dim=1)].any()
    assert not run(with_alphas(case, torch.zeros_like(alphas_of(case))))[0].any()


@given(cases)
@example(BESIDE_ZERO)
def test_every_choice_of_a_gate_is_counted(case: Case) -> None:
    _, counts = run_counting(case)
    assert torch.equal(counts, expected_counts(case))


@given(cases)
def test_an_unsteered_token_and_a_coarse_profile_count_nothing(case: Case) -> None:
    with_gate = case.slots[:, COUNT] > 0
    case.tokens[:, SLOT][with_gate[case.tokens[:, SLOT].long()]] = 0
    assert torch.equal(run_counting(case)[1], case.counts)


@given(cases)
def test_only_what_was_decided_and_counted_is_written(case: Case) -> None:
    before = [None if tensor is None else tensor.clone() for tensor in case.tensors()]
    _, decided, _ = run(case)
    for tensor, was in zip(case.tensors(), before, strict=True):
        assert (tensor is None) == (was is None)
        assert tensor is None or was is None or torch.equal(tensor.nan_to_num(), was.nan_to_num())
    decides = case.tokens[: len(case.hidden), DECISION]
    changed = (decided != case.decided).nonzero().flatten().tolist()
    assert set(changed) <= set((-decides[decides < 0]).tolist())


@given(cases, st.sampled_from([-2.0, -1.0, 0.5, 4.0]))
def test_the_delta_is_linear_in_alpha(case: Case, factor: float) -> None:
    # By powers of two and in float32, where scaling is exact.
    case = case.widened()
    assert torch.equal(run(with_alphas(case, alphas_of(case) * factor))[0], run(case)[0] * factor)


@given(cases, st.permutations(range(7)))
def test_permuted_tokens_get_permuted_deltas(case: Case, permutation: list[int]) -> None:
    order = [token for token in permutation if token < len(case.hidden)]
    delta, decided, lost = run(case)
    assert equal(run(case.of_tokens(order)), (delta[order], decided, lost[order]))


@given(cases)
def test_a_token_alone_gets_what_it_gets_in_a_batch(case: Case) -> None:
    alone = [run(case.of_tokens([token]))[0] for token in range(len(case.hidden))]
    assert torch.equal(torch.cat([*alone, case.hidden[:0]]), run(case)[0])


@given(cases)
def test_the_parts_add_up_to_what_each_adds_alone(case: Case) -> None:
    case = case.widened()
    total = torch.zeros_like(case.hidden)
    for part in range(4):
        tokens = case.tokens.clone()
        tokens[:, SLOT] = 0
        tokens[:, SLOT, part] = case.tokens[:, SLOT, part]
        total += run(replace(case, tokens=tokens))[0]
    assert torch.equal(run(case)[0], total)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_two_coarse_profiles_add_the_sum_of_their_vectors(seed: int, tokens: int) -> None:
    case = make_case(seed, tokens=tokens, size=6, slots=[Slot(), Slot(), Slot()], dtype=torch.float32)
    case.rows[3] = case.rows[1] + case.rows[2]
    case = with_alphas(case, torch.ones_like(alphas_of(case)))
    case.tokens[:, SLOT] = torch.tensor([1, 2, 0, 0], dtype=torch.int32)
    apart = run(case)[0]
    case.tokens[:, SLOT] = torch.tensor([0, 0, 3, 0], dtype=torch.int32)
    assert torch.equal(run(case)[0], apart)


@given(cases)
def test_a_decision_that_was_made_is_read_as_it_would_be_made_again(case: Case) -> None:
    """One step decides and the next reads: same stream, same delta."""
    case.tokens[:, DECISION] = -case.tokens[:, DECISION].abs()
    delta, decided, _ = run(case)
    case.tokens[:, DECISION] = case.tokens[:, DECISION].abs()
    assert torch.equal(run(replace(case, decided=decided))[0], delta)


def one_token(
    stream: list[float], centroids: list[list[float]], slot: Slot, dtype: torch.dtype = torch.float32, decision: int = 0
) -> tuple[int, int]:
    """Which row of [1…K] is added to one token (0 for none), and which was noted at place 1."""
    c = torch.tensor(centroids)
    k, size = c.shape
    vectors = torch.arange(1.0, k + 1)[:, None].expand(k, size)
    tokens = torch.zeros(1, 3, 4, dtype=torch.int32)
    tokens[0, :, 0] = torch.tensor([1, np.float32(1).view(np.int32), decision])
    decided = torch.full((2,), 99, dtype=torch.int32)
    delta = steer(
        torch.zeros(1, size, dtype=dtype),
        torch.tensor([stream], dtype=dtype),
        torch.ones(1, dtype=torch.uint8),
        tokens,
        torch.tensor([[NOT_HERE, 0, 0], [0, k, slot.metric]], dtype=torch.int32),
        torch.tensor([*islice(cycle(slot.limits), k), *[0.0] * k], dtype=torch.float64),
        torch.cat([torch.from_numpy(half_squares(c.numpy())), torch.zeros(k)]),
        torch.cat([c, vectors]),
        decided,
        torch.zeros(1, dtype=torch.uint8),
        torch.zeros(2, 2 * k, dtype=torch.int64),
    )
    assert (delta == delta[0, 0]).all()
    return int(delta[0, 0]), int(decided[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_lowest_index_wins_a_tie(dtype: torch.dtype) -> None:
    # The second and third centroid are equally far from 0, and so is the fourth, their copy; the first is farther.
    assert one_token([0, 0], [[3.0, 3.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], Slot(), dtype)[0] == 2


@pytest.mark.parametrize(
    ("stream", "metric", "limit"),
    [
        ([3.0, 4.0, 0.0, 0.0], EUCLIDEAN, 18.0),  # √18 from (0, 1, 0, 0)
        ([0.0, 1.0, 0.0, 0.0], EUCLIDEAN, 0.0),
        ([0.0, 7.0, 0.0, 0.0], COSINE, 0.0),
        ([1.0, 1.0, 1.0, 1.0], COSINE, 0.5),
        ([2.0, 0.0, 0.0, 0.0], COSINE, 1.0),
        ([0.0, -3.0, 0.0, 0.0], COSINE, 2.0),
    ],
)
def test_a_limit_is_inclusive_to_the_last_bit(stream: list[float], metric: int, limit: float) -> None:
    centroids = [[0.0, 1.0, 0.0, 0.0]]
    assert one_token(stream, centroids, Slot(1, metric, (limit,)))[0] == 1
    below = float(np.nextafter(limit, -1))
    assert one_token(stream, centroids, Slot(1, metric, (below,)))[0] == 0


@pytest.mark.parametrize(("metric", "limits"), [(EUCLIDEAN, (0.25, 4.0, math.inf)), (COSINE, (0.0, 1.0, math.inf))])
def test_each_concept_has_a_limit_of_its_own(metric: int, limits: tuple[float, ...]) -> None:
    centroids = [[-1.0, 0.0], [2.0, 0.0], [0.0, -3.0]]
    near = [[-1.5, 0.5], [2.5, 0.5], [0.5, -3.5]]  # at squared distances of 0.5, cosine distances of 0.01 to 0.06
    assert [one_token(h, centroids, Slot(3, metric, limits))[0] for h in near] == [0, 2, 3]
    assert [one_token(h, centroids, Slot(3, metric, limits[::-1]))[0] for h in near] == [1, 2, 0]


def test_a_zero_vector_is_inside_where_its_concept_has_no_limit() -> None:
    assert one_token([0.0], [[0.5], [9.0]], Slot(2, COSINE, (math.inf, 2.0)))[0] == 1
    assert one_token([0.0], [[0.5], [9.0]], Slot(2, COSINE, (2.0, math.inf)))[0] == 0


def test_the_nearest_is_euclidean_under_a_cosine_limit_too() -> None:
    # By cosine the second would be the nearest, and inside the limit.
    assert one_token([1.0, 0.0], [[1.0, 1.0], [9.0, 0.0]], Slot(2, COSINE, (0.1,)))[0] == 0
    assert one_token([1.0, 0.0], [[1.0, 1.0], [9.0, 0.0]], Slot(2, COSINE, (0.3,)))[0] == 1


@pytest.mark.parametrize(("stream", "centroid"), [([0.0, 0.0], [1.0, 0.0]), ([1.0, 0.0], [0.0, 0.0])])
def test_a_zero_vector_is_inside_no_cosine_limit(stream: list[float], centroid: list[float]) -> None:
    assert one_token(stream, [centroid], Slot(1, COSINE, (2.0,)))[0] == 0
    assert one_token(stream, [centroid], Slot(1, EUCLIDEAN, (2.0,)))[0] == 1


def test_a_decision_to_add_nothing_is_kept_too() -> None:
    assert one_token([9.0], [[0.0]], Slot(1, EUCLIDEAN, (1.0,)), decision=-1) == (0, NOT_HERE)
    assert one_token([1.0], [[0.0]], Slot(1, EUCLIDEAN, (1.0,)), decision=-1) == (1, 1)


def test_the_stream_is_summed_in_float32() -> None:
    # In bfloat16 256 + 1 would be 256, nearest to the first centroid.
    case = make_case(0, tokens=1, size=1, slots=[Slot(2)], dtype=torch.bfloat16)
    case.rows[1:].copy_(torch.tensor([[256.0], [257.0], [10.0], [20.0]]))
    case.bias[1:3].copy_(case.rows[1:3, 0].double().square() / 2)
    case.hidden.fill_(256)
    case = replace(case, residual=torch.ones_like(case.hidden))
    case.tokens[:, SLOT] = torch.tensor([1, 0, 0, 0], dtype=torch.int32)
    case.tokens[:, DECISION] = 0
    assert run(with_alphas(case, torch.ones_like(alphas_of(case))))[0].item() == 20.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_delta_is_rounded_once(dtype: torch.dtype) -> None:
    case = make_case(1, tokens=64, size=64, slots=[Slot()], dtype=dtype)
    case.tokens[:, SLOT] = 1
    each = alphas_of(case)[:64, :, None] * case.rows[1]
    once = (((each[:, 0] + each[:, 1]) + each[:, 2]) + each[:, 3]).to(dtype)
    assert torch.equal(run(case)[0], once)
    assert not torch.equal(once, each.to(dtype).sum(dim=1))  # so the line above tells the two apart


@pytest.mark.parametrize(
    ("dtype", "alphas", "kept"),
    [
        (torch.float16, [400.0, 400.0, 0.0, 0.0], False),  # 80,000
        (torch.float16, [400.0, -400.0, 300.0, 0.0], True),  # 30,000, summed in float32
        (torch.bfloat16, [3e38, 0.0, 0.0, 0.0], False),
        (torch.float32, [3e36, -3e38, 3e38, 0.0], False),  # infinite on the way
        (torch.float32, [float("nan"), 0.0, 0.0, 0.0], False),
        (torch.float32, [3e36, 0.0, 0.0, 0.0], True),
    ],
)
def test_an_addition_that_is_not_finite_is_left_out_and_marked(
    dtype: torch.dtype, alphas: list[float], kept: bool
) -> None:
    case = make_case(0, tokens=3, size=40, slots=[Slot()], dtype=dtype, spare=0)
    case.rows[1] = 0
    case.rows[1, 37] = 100
    case.tokens[:, SLOT] = torch.tensor([[1], [0], [1]])
    case = with_alphas(case, torch.tensor([alphas]).expand(len(case.tokens), -1))
    case.tokens[2, ALPHA] = torch.ones(4).view(torch.int32)
    delta, _, lost = run(case)
    assert bool(delta[0].any()) is kept
    assert delta.isfinite().all()
    assert delta[2, 37] == 400
    assert lost.tolist() == [not kept, 0, 0]


def test_the_first_layer_of_a_step_takes_old_marks_away_and_later_ones_leave_those_of_the_first() -> None:
    case = make_case(0, tokens=3, size=4, slots=[Slot()], dtype=torch.float32, parts=1, spare=0)
    case.tokens[:, SLOT] = torch.tensor([1, 0, 0, 0])
    case.tokens[1, ALPHA, 0] = int(np.float32(np.inf).view(np.int32))
    former = replace(case, lost=torch.tensor([1, 0, 0], dtype=torch.uint8))
    assert run(former)[2].tolist() == [0, 1, 0]
    assert run(replace(former, opens=False))[2].tolist() == [1, 1, 0]
    case.tokens[:, SLOT] = 0
    assert run(former)[2].tolist() == [0, 0, 0]
