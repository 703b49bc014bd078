"""A quick benchmark fits into its minutes whatever the machine, and keeps as much as they hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.budget import fitting, said, seconds_of
from bench.cases import CONCURRENCY, HEADLINE, QUICK, cases

FAST = {1: 0.001, 8: 0.0015, 32: 0.003}


def _slower(times: float) -> dict[int, float]:
    return {n: times * seconds for n, seconds in FAST.items()}


def test_a_fast_machine_takes_the_whole_quick_run() -> None:
    assert fitting(260.0, 40.0, FAST) == QUICK


@given(st.floats(1, 30), st.floats(20, 200))
def test_what_is_chosen_fits_or_is_the_smallest(times: float, start: float) -> None:
    left, step = 300.0 - start, _slower(times)
    size = fitting(left, start, step)
    smallest = fitting(0.0, start, step)
    assert size == smallest or (size.starts - 1) * start + size.starts * seconds_of(size, step) <= left


@given(st.floats(1, 30), st.floats(20, 2000))
def test_where_nothing_fits_no_engine_is_started_again(times: float, start: float) -> None:
    assert fitting(300.0 - start, start, _slower(times)).starts == 1 or start < 300.0
    assert fitting(0.0, start, _slower(times)).starts == 1


@given(st.floats(1, 10), st.floats(1, 3))
def test_a_slower_machine_never_gets_more_pairs(times: float, more: float) -> None:
    one, other = (fitting(200.0, 60.0, _slower(by)) for by in (times, times * more))
    assert other.tokens < 32 or one.starts * one.pairs >= other.starts * other.pairs


def test_a_size_without_pairs_elsewhere_still_has_every_headline() -> None:
    size = fitting(0.0, 100.0, _slower(10))
    assert size.elsewhere == 0
    headline = {(case.key, case.concurrency) for case in cases(size) if case.key in HEADLINE}
    assert headline == set(HEADLINE.items())
    assert {case.concurrency for case in cases(size)} == {CONCURRENCY, 32}


def test_what_was_cut_is_said_with_what_it_did_to_the_intervals() -> None:
    size = fitting(0.0, 100.0, FAST)
    assert f"1 start of {size.pairs} pairs" in said(size)
    assert "times as wide" in said(size)
    assert "as wide" not in said(QUICK)
