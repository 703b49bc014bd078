"""The op adds alpha times the nearest row to each steered token, and nothing to any other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.plugin.steering_case import Case, expected, make_case
from trimtab.plugin.op import steer

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

cases = st.builds(
    make_case,
    st.integers(0, 2**32 - 1),
    tokens=st.integers(0, 7),
    size=st.integers(1, 9),
    counts=st.lists(st.sampled_from([0, 1, 1, 2, 3, 9]), max_size=4),
    dtype=st.sampled_from(DTYPES),
)


def run(case: Case) -> torch.Tensor:
    return steer(*case.tensors())


@given(cases)
def test_every_token_gets_what_a_loop_over_tokens_gives_it(case: Case) -> None:
    delta = run(case)
    assert delta.shape == case.residual.shape
    assert delta.dtype == case.residual.dtype
    assert torch.equal(delta, expected(case))


@given(cases)
def test_an_unsteered_token_and_an_alpha_of_zero_get_exact_zeros(case: Case) -> None:
    delta = run(case)
    assert not delta[case.token_slot[: len(delta)] == 0].any()
    assert not run(replace(case, token_alpha=torch.zeros_like(case.token_alpha))).any()


@given(cases)
def test_the_arguments_are_left_as_they_are(case: Case) -> None:
    before = [tensor.clone() for tensor in case.tensors()]
    run(case)
    assert all(torch.equal(old, new) for old, new in zip(before, case.tensors(), strict=True))


@given(cases, st.sampled_from([-2.0, -1.0, 0.5, 4.0]))
def test_the_delta_is_linear_in_alpha(case: Case, factor: float) -> None:
    # By powers of two and in float32, where scaling is exact.
    case = replace(case, hidden=case.hidden.float(), residual=case.residual.float())
    assert torch.equal(run(replace(case, token_alpha=case.token_alpha * factor)), run(case) * factor)


@given(cases, st.permutations(range(7)))
def test_permuted_tokens_get_permuted_deltas(case: Case, permutation: list[int]) -> None:
    order = torch.tensor([token for token in permutation if token < len(case.residual)], dtype=torch.int64)
    permuted = replace(
        case,
        hidden=case.hidden[order],
        residual=case.residual[order],
        token_slot=case.token_slot[order],
        token_alpha=case.token_alpha[order],
    )
    assert torch.equal(run(permuted), run(case)[order])


@given(cases)
def test_a_token_alone_gets_what_it_gets_in_a_batch(case: Case) -> None:
    alone = [
        run(
            replace(
                case,
                hidden=case.hidden[t : t + 1],
                residual=case.residual[t : t + 1],
                token_slot=case.token_slot[t : t + 1],
                token_alpha=case.token_alpha[t : t + 1],
            )
        )
        for t in range(len(case.residual))
    ]
    assert torch.equal(torch.cat([*alone, case.residual[:0]]), run(case))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_lowest_index_wins_a_tie(dtype: torch.dtype) -> None:
    # The second and third centroid are equally far from h = 0, and so is the fourth, their copy; the first is farther.
    case = make_case(0, tokens=1, size=2, counts=[4], dtype=dtype)
    centroids = torch.tensor([[0.0, 0.0], [3.0, 3.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    case = replace(
        case,
        hidden=torch.zeros(1, 2, dtype=dtype),
        residual=torch.zeros(1, 2, dtype=dtype),
        token_slot=torch.ones(1, dtype=torch.int32),
        token_alpha=torch.ones(1),
        centroids=centroids,
        bias=centroids.square().sum(dim=1) / 2,
    )
    assert torch.equal(run(case), case.vectors[2:3].to(dtype))


def test_the_stream_is_summed_in_float32() -> None:
    # In bfloat16 256 + 1 would be 256, nearest to the first centroid.
    centroids = torch.tensor([[0.0], [256.0], [257.0]])
    vectors = torch.tensor([[0.0], [10.0], [20.0]])
    one = torch.ones(1, dtype=torch.int32)
    delta = steer(
        torch.tensor([[256.0]], dtype=torch.bfloat16),
        torch.tensor([[1.0]], dtype=torch.bfloat16),
        one,
        one.float(),
        torch.tensor([0, 1], dtype=torch.int32),
        torch.tensor([0, 2], dtype=torch.int32),
        centroids,
        centroids.square().sum(dim=1) / 2,
        vectors,
    )
    assert delta.item() == 20.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_delta_is_rounded_once(dtype: torch.dtype) -> None:
    case = make_case(1, tokens=64, size=64, counts=[1], dtype=dtype)
    once = (case.token_alpha[:64, None] * case.vectors[1]).to(dtype)
    twice = case.token_alpha[:64, None].to(dtype) * case.vectors[1].to(dtype)
    steered = case.token_slot[:64] == 1
    assert torch.equal(run(case)[steered], once[steered])
    assert not torch.equal(once[steered], twice[steered])  # so the line above tells the two apart
