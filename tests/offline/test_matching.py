from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from trimtab.offline.errors import SettingError
from trimtab.offline.shift.matching import cosines, match_concepts


@settings(deadline=None, max_examples=60)
@given(k=st.integers(1, 25), size=st.integers(2, 12), seed=st.integers(0, 1000))
def test_with_equal_k_the_transport_is_the_linear_assignment(k: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, k, size))
    match = match_concepts(a, b)
    assert sorted(match) == list(range(k))
    cost = 1 - cosines(a, b)
    rows, columns = linear_sum_assignment(cost)
    assert cost[np.arange(k), match].sum() == pytest.approx(cost[rows, columns].sum())


@settings(deadline=None, max_examples=30)
@given(k=st.integers(2, 20), seed=st.integers(0, 1000), scale=st.floats(0.01, 100))
def test_concepts_find_themselves_in_another_order_and_at_another_length(k: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(k, 16))
    order = rng.permutation(k)
    assert np.array_equal(order[match_concepts(a, scale * a[order])], np.arange(k))


def test_with_unequal_k_most_of_the_mass_decides() -> None:
    near = np.array([[1, 0.1], [1, -0.1], [0.1, 1], [-0.1, 1]])
    assert match_concepts(near, np.eye(2)).tolist() == [0, 0, 1, 1]
    assert match_concepts(np.eye(2), near).shape == (2,)
    assert match_concepts(np.eye(2), near)[0] in (0, 1)
    assert match_concepts(np.eye(2), near)[1] in (2, 3)


def test_an_even_split_of_the_mass_goes_to_the_nearest() -> None:
    wide, narrow = [1, 0.3], [1, 0.1]
    assert match_concepts([[1, 0]], [wide, narrow]).tolist() == [1]


def test_cosines_are_bounded_and_zero_for_a_zero_vector() -> None:
    found = cosines([[3, 0], [0, 0]], [[5, 0], [0, 1], [-1, 0]])
    assert found.tolist() == [[1, 0, -1], [0, 0, 0]]


def test_concepts_of_two_sizes_cannot_be_matched() -> None:
    with pytest.raises(SettingError, match="size 2 and 3"):
        match_concepts(np.eye(2), np.eye(3))
