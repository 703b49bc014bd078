"""Which arm a unit gets: alike everywhere, for ever, and by nothing that a client can choose."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from trimtab.plugin.control.experiments.assign import arm_of, assigned, fraction, ranges
from trimtab.vectors.experiments import Plan, UnitKey

KEY = UnitKey("a key of thirty-two characters…!")
UNITS = [f"user-{number}" for number in range(20_000)]
UNLIKELY = 1e-6  # these units are always the same, so a law that holds once holds for ever


def plan_of(**experiments: dict[str, Any]) -> Plan:
    arms = {"control": {"steering": "none"}, "a": {"steering": "p"}, "b": {"weight": 2, "steering": "p@2"}}
    usual = {"layer": "one", "coverage": 1, "arms": arms, "status": "running"}
    made = {name: {**usual, "seed": f"s-{name}", **fields} for name, fields in experiments.items()}
    layers = {"one": {"seed": "one"}, "two": {"seed": "two", "holdout": 0.1}}
    return Plan.model_validate({"version": 1, "layers": layers, "experiments": made})


def arms_of(plan: Plan, name: str = "e") -> dict[str, str]:
    found = {unit: assigned(plan, name, unit, KEY) for unit in UNITS}
    return {unit: arm for unit, arm in found.items() if arm is not None}


# Those of GrowthBook's `getBucketRanges` with full coverage (growthbook 1.2.1, core.py).
@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([0.5, 0.5], [(0, 0.5), (0.5, 1)]),
        ([0.25] * 4, [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]),
        ([0.4, 0.6], [(0, 0.4), (0.4, 1)]),
        ([0.2, 0.3, 0.5], [(0, 0.2), (0.2, 0.5), (0.5, 1)]),
    ],
)
def test_the_ranges_are_growthbooks(weights: list[float], expected: list[tuple[float, float]]) -> None:
    assert ranges(weights) == [pytest.approx(pair) for pair in expected]


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=9))
def test_the_ranges_have_no_gap_and_end_at_one(weights: list[float]) -> None:
    found = ranges(weights)
    assert (found[0][0], found[-1][1]) == (0, 1)
    assert [end for _, end in found[:-1]] == [start for start, _ in found[1:]]
    assert all(start <= end for start, end in found)


@given(st.text(), st.sampled_from(["layer", "arm"]), st.text("abc.-", min_size=1, max_size=16))
def test_a_fraction_is_the_same_for_ever_and_below_one(unit: str, word: str, seed: str) -> None:
    assert 0 <= fraction(KEY, word, seed, unit) < 1
    assert fraction(KEY, word, seed, unit) == fraction(UnitKey("a key of thirty-two characters…!"), word, seed, unit)


def test_a_golden_unit_keeps_its_arm() -> None:
    """A change here would give every running experiment new arms."""
    plan = plan_of(e={})
    golden = "b control control b control b b a b control a a"
    assert [assigned(plan, "e", unit, KEY) for unit in UNITS[:12]] == golden.split()


def test_units_fall_to_the_arms_by_their_weights() -> None:
    counts = Counter(arms_of(plan_of(e={})).values())
    assert chisquare([counts["control"], counts["a"], counts["b"]], [5000, 5000, 10_000]).pvalue > UNLIKELY


def test_layer_coverage_holdout_and_arm_do_not_tell_of_each_other() -> None:
    """Also where all seeds are the same text, which a plan refuses."""
    words = ("layer", "holdout", "coverage", "arm")
    halves = {word: [fraction(KEY, word, "same", unit) < 0.5 for unit in UNITS] for word in words}
    for number, word in enumerate(words):
        assert chisquare([sum(halves[word]), len(UNITS) - sum(halves[word])]).pvalue > UNLIKELY
        for other in words[:number]:
            pairs = Counter(zip(halves[word], halves[other], strict=True))
            table = [[pairs[a, b] for b in (False, True)] for a in (False, True)]
            assert chi2_contingency(table).pvalue > UNLIKELY


def test_a_client_that_does_not_know_the_key_cannot_tell_an_arm() -> None:
    other = UnitKey("another key of many characters!!")
    plan = plan_of(e={})
    mine, theirs = arms_of(plan), {unit: arm_of(plan.experiments["e"], unit, other) for unit in UNITS}
    pairs = Counter((mine[unit], theirs[unit]) for unit in UNITS)
    names = ("control", "a", "b")
    assert chi2_contingency([[pairs[a, b] for b in names] for a in names]).pvalue > UNLIKELY


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_ramp_only_adds_units(coverage: float, more: float, start: float, end: float) -> None:
    low, high = sorted((coverage, more))
    begin, stop = sorted((start, end))
    wide = plan_of(e={"coverage": high, "range": [0, 1]})
    narrow = plan_of(e={"coverage": low, "range": [begin, stop]})
    for unit in UNITS[:300]:
        before = assigned(narrow, "e", unit, KEY)
        assert before is None or before == assigned(wide, "e", unit, KEY)


def test_experiments_of_one_layer_never_share_a_unit_and_those_of_two_do() -> None:
    plan = plan_of(e={"range": [0, 0.4]}, f={"range": [0.4, 1]}, g={"layer": "two"})
    e, f, g = (set(arms_of(plan, name)) for name in "efg")
    assert not e & f
    assert e | f == set(UNITS)
    # The layer with a holdout gives it to none of its experiments.
    assert chisquare([len(g), len(UNITS) - len(g)], [18_000, 2000]).pvalue > UNLIKELY
    assert chi2_contingency([[len(e & g), len(e - g)], [len(f & g), len(f - g)]]).pvalue > UNLIKELY


def test_a_new_seed_assigns_anew() -> None:
    before, after = arms_of(plan_of(e={})), arms_of(plan_of(e={"seed": "s-next"}))
    pairs = Counter((before[unit], after[unit]) for unit in UNITS)
    names = ("control", "a", "b")
    assert chi2_contingency([[pairs[a, b] for b in names] for a in names]).pvalue > UNLIKELY
