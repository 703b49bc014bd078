"""The verdict, as a table."""

from __future__ import annotations

import pytest

from trimtab.offline.experiments.verdict import Guarded, Primary, Verdict, decide, guarded, primary, together


@pytest.mark.parametrize(
    ("interval", "higher", "lower"),
    [
        ((0.1, 0.2), "better", "worse"),
        ((-0.2, -0.1), "worse", "better"),
        ((-0.1, 0.2), "open", "open"),
        ((0.0, 0.2), "open", "open"),
        (None, "open", "open"),
    ],
)
def test_the_primary_metric(interval: tuple[float, float] | None, higher: Primary, lower: Primary) -> None:
    assert primary(interval, "higher") == higher
    assert primary(interval, "lower") == lower


@pytest.mark.parametrize(
    ("interval", "state"),
    [
        ((-0.5, 0.5), "safe"),
        ((-0.5, 1.0), "unclear"),
        ((-0.5, 1.5), "unclear"),
        ((1.1, 1.5), "broken"),
        ((1.0, 1.5), "unclear"),
        ((-9.0, -8.0), "safe"),
        (None, "unclear"),
    ],
)
def test_a_guardrail_with_a_margin_of_one(interval: tuple[float, float] | None, state: Guarded) -> None:
    assert guarded(interval, "lower", 1.0) == state
    mirrored = None if interval is None else (-interval[1], -interval[0])
    assert guarded(mirrored, "higher", 1.0) == state


@pytest.mark.parametrize(
    ("mismatch", "main", "guards", "verdict"),
    [
        (False, "better", {}, "ship"),
        (False, "better", {"a": "safe", "b": "safe"}, "ship"),
        (False, "better", {"a": "safe", "b": "unclear"}, "undecided"),
        (False, "better", {"a": "broken"}, "stop"),
        (False, "worse", {"a": "safe"}, "stop"),
        (False, "worse", {}, "stop"),
        (False, "open", {"a": "safe"}, "undecided"),
        (False, "open", {"a": "broken"}, "stop"),
        (True, "better", {"a": "safe"}, "undecided"),
        (True, "worse", {"a": "broken"}, "undecided"),
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_an_arm(mismatch: bool, main: Primary, guards: dict[str, Guarded], verdict: Verdict, full: bool) -> None:
    found, why = decide(mismatch, main, guards, full)
    assert found == verdict
    assert why
    assert all(sentence.endswith(".") for sentence in why)
    for name, state in guards.items():
        if state != "safe" and not mismatch:
            assert any(name in sentence for sentence in why)


def test_nothing_is_decided_before_the_planned_size_where_that_decides() -> None:
    assert decide(False, "worse", {"a": "broken"}, False, waiting=True)[0] == "undecided"


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        (["ship"], "ship"),
        (["stop", "ship", "undecided"], "ship"),
        (["stop", "undecided"], "undecided"),
        (["stop", "stop"], "stop"),
        ([], "undecided"),
    ],
)
def test_all_arms_together(verdicts: list[Verdict], verdict: Verdict) -> None:
    assert together(verdicts) == verdict
