"""Figures with intervals, counts by word, conversion matrices, stuttering."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.offline.evaluation.rates import Counted, conversions, lumped, occurrences
from trimtab.offline.evaluation.repetition import distinct, stutters
from trimtab.offline.statistics import mean, rate

ANSWERS = st.dictionaries(st.integers(0, 30).map(str), st.sampled_from(["yes", "no", "1", "3"]))


def test_the_wilson_interval_is_the_textbooks() -> None:
    found = rate(5, 100)
    assert (found.value, found.n, found.how) == (0.05, 100, "wilson")
    assert (found.low, found.high) == pytest.approx((0.02154, 0.11175), abs=1e-4)


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_rate_lies_in_its_interval(hits: int, misses: int) -> None:
    found = rate(hits, hits + misses)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_nothing_counted_says_nothing() -> None:
    assert (rate(0, 0).low, rate(0, 0).high, rate(0, 0).n) == (0, 1, 0)


def test_a_bootstrapped_mean_has_the_width_of_its_standard_error_and_is_seeded() -> None:
    values = [0.0, 1.0] * 200
    found = mean(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.15)
    assert found == mean(values)
    assert mean([0.3] * 5).low == mean([0.3] * 5).high == pytest.approx(0.3)


def test_a_word_is_counted_in_three_ways() -> None:
    answers = ["No.", "no", "in the snow", "there is no dog", "yes"]
    assert occurrences(answers, "no") == Counted(exact=2, word=3, substring=4)


@given(ANSWERS, ANSWERS)
def test_the_conversion_matrix_counts_each_shared_sample_once(before: dict[str, str], after: dict[str, str]) -> None:
    flow = conversions(before, after)
    assert sum(flow.values()) == len(before.keys() & after.keys())
    assert conversions(after, before) == Counter({(new, old): count for (old, new), count in flow.items()})


def test_rare_answers_are_made_one_without_losing_any() -> None:
    flow = {("yes", "no"): 2, ("red", "red"): 1, ("blue", "yes"): 3}
    assert lumped(flow, {"yes", "no"}) == [("(other)", "yes", 3), ("yes", "no", 2), ("(other)", "(other)", 1)]


WORD = st.sampled_from(["yes", "no", "red", "blue", "two"])


@given(st.dictionaries(st.tuples(WORD, WORD), st.integers(1, 9)), st.sets(WORD))
def test_making_rare_answers_one_hides_no_change(flow: dict[tuple[str, str], int], keep: set[str]) -> None:
    made = lumped(flow, keep)
    assert sum(count for old, new, count in made if old != new) == sum(
        n for (old, new), n in flow.items() if old != new
    )
    assert sum(count for *_, count in made) == sum(flow.values())


@pytest.mark.parametrize(
    ("text", "alarm"),
    [
        ("black black black", True),
        ("a man on a man on a man on a bike", True),
        ("black black dog", False),
        ("two dogs and two cats and two birds", False),
        ("1 1 1", True),
        ("1, 1, 1.", True),
        ("1111", True),
        ("121212", True),
        ("2men2men2men", True),
        ("Black-black-black", True),
        ("black_black_black", True),
        ("1-1-1", True),
        ("111", False),
        ("in 1999", False),
        ("1000000", False),
        ("1,000,000,000", False),
        ("10.000.000.000", False),
        ("at 00:00:00", False),
        ("one-to-one", False),
        ("he's sure she's sure", False),
        ("", False),
    ],
)
def test_three_times_in_a_row_is_a_stutter(text: str, alarm: bool) -> None:
    assert stutters(text) is alarm


def test_distinct_n_counts_different_runs_of_words() -> None:
    assert distinct(["a b a", "a b"], 1) == 2 / 5
    assert distinct(["a b a", "a b"], 2) == 2 / 3
    assert distinct([], 2) == 0
