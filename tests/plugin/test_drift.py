"""The index is 0 for equal shares, finite for all, and quiet about chance; its window forgets what is old."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.plugin.steps.drift import Window, stability_index

counted = st.lists(st.integers(0, 1000), min_size=2, max_size=9).filter(any)
weights = st.lists(st.floats(0, 1), min_size=2, max_size=9).filter(lambda shares: sum(shares) > 0.01)


@given(counted)
def test_the_shares_that_are_expected_have_an_index_of_zero(counts: list[int]) -> None:
    shares = np.array(counts[:-1]) / sum(counts)
    assert stability_index(np.array(counts), shares.tolist(), 1000) == pytest.approx(0, abs=1e-9)


@given(counted, weights, st.integers(1, 10**6))
def test_the_index_is_finite_and_never_below_zero(counts: list[int], shares: list[float], requests: int) -> None:
    k = min(len(counts), len(shares))
    expected = [share / sum(shares) for share in shares[: k - 1]]
    found = stability_index(np.array([*counts[: k - 1], max(1, counts[k - 1])]), expected, requests)
    assert math.isfinite(found)
    assert found >= -1e-12


def test_the_index_is_what_its_formula_says() -> None:
    half = 0.5 / 1000
    p = (np.array([0.6, 0.3, 0.1]) + half) / (1 + 3 * half)
    q = (np.array([0.5, 0.5, 0.0]) + half) / (1 + 3 * half)
    found = stability_index(np.array([600, 300, 100]), [0.5, 0.5], 1000)
    assert found == pytest.approx(sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True)))


@given(counted, counted, weights, st.floats(0, 1))
def test_a_mixture_of_engines_drifts_no_more_than_the_one_that_drifts_most(
    one: list[int], other: list[int], shares: list[float], part: float
) -> None:
    """Which is why the largest index of several engines stands for them all."""
    k = min(len(one), len(other), len(shares) + 1)
    a, b = np.array([*one[: k - 1], 1 + one[k - 1]]), np.array([*other[: k - 1], 1 + other[k - 1]])
    expected = [share / sum(shares) for share in shares[: k - 1]]
    mixed = part * a / a.sum() + (1 - part) * b / b.sum()
    apart = [stability_index(counts, expected, 1000) for counts in (a, b)]
    assert stability_index(mixed, expected, 1000) <= max(apart) + 1e-9


@pytest.mark.parametrize("concepts", [2, 20, 64])
def test_chance_alone_stays_far_below_the_alarm(concepts: int) -> None:
    rng = np.random.default_rng(concepts)
    shares = rng.dirichlet(np.ones(concepts + 1))
    size = Window(concepts + 1).size
    found = [stability_index(rng.multinomial(size, shares), shares[:-1].tolist(), size) for _ in range(300)]
    assert max(found) < 0.1
    assert np.mean(found) < 0.05


def test_a_window_is_full_after_its_size_and_then_forgets_what_is_older() -> None:
    window, expected = Window(3), [0.5, 0.5]
    assert window.size == 1000
    for _ in range(99):
        window.add(10, np.array([5, 5, 0]))
        assert window.index(expected) is None
    window.add(10, np.array([5, 5, 0]))
    assert window.index(expected) == pytest.approx(0, abs=1e-9)
    before = 0.0
    for _ in range(100):
        window.add(10, np.array([10, 0, 0]))
        assert window.requests <= 1.1 * window.size
        now = window.index(expected)
        assert now is not None
        assert now >= before - 1e-9
        before = now
    for _ in range(10):
        window.add(10, np.array([10, 0, 0]))
    assert window.index(expected) == stability_index(np.array([1, 0, 0]), expected, window.requests)


def test_a_window_has_fifty_requests_for_each_bin() -> None:
    assert Window(65).size == 3250


def test_one_large_batch_may_fill_a_window() -> None:
    window = Window(2)
    window.add(5000, np.array([5000, 0]))
    assert window.index([1.0]) == pytest.approx(0, abs=1e-9)
    window.add(1000, np.array([0, 1000]))
    assert window.requests == 1000
