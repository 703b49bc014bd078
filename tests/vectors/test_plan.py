"""A plan is read whole or refused whole, and a running one changes only so that no unit changes its arm."""

from __future__ import annotations

import pickle

import pytest

from trimtab.vectors.experiments import Phases, Plan, PlanError, changes, read_plan

WHOLE = """\
version: 1
layers:
  strength: {seed: s-2026-11, holdout: 0.02}
  tone: {seed: t-1}
experiments:
  gender-alpha:
    layer: strength
    range: [0.0, 0.5]
    seed: ga-1
    unit: [steering.unit, X-Session-ID, user]
    coverage: 0.10
    arms:
      control: {weight: 1, steering: none}
      a08: {weight: 1, steering: {profile: gender-neutral, alpha: 0.8}}
    planned_units: 20000
    metrics:
      primary: gendered_rate
      guardrails: {refusal_rate: {margin: 0.005}, tokens: {margin: 0.05, kind: ratio, denominator: turns}}
    status: running
  other:
    layer: strength
    range: [0.5, 1]
    seed: o-1
    coverage: 1
    arms: {usual: {steering: null}, both: {weight: 2, steering: [a@1, b]}}
"""


def faults_of(text: str) -> list[tuple[int | None, str]]:
    with pytest.raises(PlanError) as caught:
        read_plan(text)
    assert pickle.loads(pickle.dumps(caught.value)).faults == caught.value.faults
    return [(line, reason) for reason, line in caught.value.faults]


def test_a_whole_plan_is_read_as_it_is_written() -> None:
    plan = read_plan(WHOLE)
    one, other = plan.experiments.values()
    assert (one.control, one.running, one.stopped_with, one.planned_units) == ("control", True, None, 20000)
    assert (other.control, other.status, other.unit) == ("usual", "draft", ("steering.unit", "X-Session-ID", "user"))
    assert one.arms["control"].profiles == ()
    assert other.arms["usual"].profiles is None
    assert [part.profile for part in other.arms["both"].profiles or ()] == ["a", "b"]
    assert one.metrics is not None
    assert (one.metrics.primary.name, one.metrics.primary.better) == ("gendered_rate", "higher")
    assert one.metrics.guardrails["tokens"].denominator == "turns"
    assert one.metrics.guardrails["refusal_rate"].better == "lower"


def test_the_digest_is_of_the_meaning() -> None:
    assert read_plan(WHOLE.replace("0.10", "0.1000") + "# the end\n").digest == read_plan(WHOLE).digest
    others = [WHOLE.replace(*pair) for pair in (("0.10", "0.2"), ("ga-1", "ga-2"), ("a@1", "a@2"), ("0.8", "0.9"))]
    assert len({read_plan(text).digest for text in (WHOLE, *others)}) == 5


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("version: 1", "version: 2", 1, "version: should be 1"),
        ("holdout: 0.02", "holdout: 1.2", 3, "layers.strength.holdout: "),
        ("coverage: 0.10", "coverage: .nan", 11, "experiments.gender-alpha.coverage: "),
        ("coverage: 0.10", "cover: 0.10", 11, "cover: is no key of a plan"),
        ("range: [0.0, 0.5]", "range: [0.5, 0.5]", 8, "is an empty range"),
        ("range: [0.0, 0.5]", "range: [0.0, 0.51]", 22, "overlaps with that of 'gender-alpha'"),
        ("layer: strength\n    range: [0.5", "layer: strenth\n    range: [0.5", 21, "there is no layer 'strenth'"),
        ("seed: o-1", "seed: ga-1", 23, "'ga-1' is the seed of 'gender-alpha'"),
        ("seed: o-1", "seed: a-seed-of-17-bytes", 23, "is no seed"),
        ("seed: o-1", "seed: 12", 23, "put it in quotes"),
        ("status: running", "status: stopped(a09)", 19, "there is no arm 'a09'"),
        ("status: running", "status: paused", 19, "should be draft, running, stopped or stopped(ARM)"),
        ("X-Session-ID, user", "request", 10, "should be 'steering.unit', 'X-Session-ID', 'user' or 'conversation'"),
        ("X-Session-ID, user", "steering.unit", 10, "names a source twice"),
        ("a08: {weight: 1", "a08: {weight: 0", 14, "arms.a08.weight: "),
        ("a08:", "none:", 14, "'none' is reserved"),
        ("alpha: 0.8", "alfa: 0.8", 14, "unknown field 'alfa'"),
        ("alpha: 0.8", "alpha: .inf", 14, "no finite number"),
        ("steering: none", "steering: {experiment: other}", 13, "should name profiles"),
        ("steering: none", "steering: {unit: me}", 13, "should name profiles"),
        (", denominator: turns", "", 18, "a ratio needs a denominator"),
        ("margin: 0.005", "margin: -1", 18, "margin: "),
        (", both: {weight: 2, steering: [a@1, b]}", "", 25, "at least 2"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(old: str, new: str, line: int, reason: str) -> None:
    assert old in WHOLE
    found = faults_of(WHOLE.replace(old, new))
    assert any(at == line and reason in said for at, said in found), found


def test_all_that_is_wrong_is_said_at_once() -> None:
    text = WHOLE.replace("0.10", "2").replace("seed: o-1", "seed: '?'").replace("holdout: 0.02", "hold: 1")
    assert [line for line, _ in faults_of(text)] == [3, 11, 23]


def changed(*pairs: tuple[str, str], before: tuple[str, str] = ("", "")) -> list[str]:
    text = WHOLE
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return changes(read_plan(WHOLE.replace(*before)), read_plan(text))


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("coverage: 0.10", "coverage: 0.5")],
        [("holdout: 0.02", "holdout: 0.01")],
        [("status: running", "status: stopped")],
        [("status: running", "status: stopped(a08)")],
        [("planned_units: 20000", "planned_units: 30000")],
        [("a08: {weight: 1", "a08: {weight: 3"), ("seed: ga-1", "seed: ga-2"), ("coverage: 0.10", "coverage: 0.01")],
        # Nobody was assigned to a draft.
        [("both: {weight: 2", "both: {weight: 9"), ("coverage: 1\n", "coverage: 0.1\n")],
        [("range: [0.5, 1]", "range: [0.6, 1]"), ("range: [0.0, 0.5]", "range: [0.0, 0.6]")],
    ],
)
def test_what_moves_no_unit_may_change(pairs: list[tuple[str, str]]) -> None:
    assert changed(*pairs) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("coverage: 0.10", "coverage: 0.09", "the coverage may only grow"),
        ("a08: {weight: 1", "a08: {weight: 2", "the weight of arm 'a08'"),
        ("alpha: 0.8", "alpha: 0.9", "the steering of arm 'a08'"),
        ("      a08:", "      a09: {steering: none}\n      a08:", "the arms, or their order"),
        ("range: [0.0, 0.5]", "range: [0.0, 0.4]", "the range may only grow"),
        ("holdout: 0.02", "holdout: 0.03", "the holdout of its layer 'strength' may only shrink"),
        ("s-2026-11", "s-2026-12", "the seed of its layer"),
        ("layer: strength\n    range: [0.0", "layer: tone\n    range: [0.0", "the layer may not change"),
        ("[steering.unit, X-Session-ID, user]", "[user]", "where its unit comes from"),
        ("status: running", "status: draft", "it is no draft any more"),
    ],
)
def test_what_would_move_a_unit_needs_a_new_seed(old: str, new: str, says: str) -> None:
    [said] = changed((old, new))
    assert said.startswith("gender-alpha: ")
    assert says in said


def test_a_running_experiment_stays_in_the_file_and_a_stopped_one_stays_stopped() -> None:
    plan = read_plan(WHOLE)
    without = Plan.model_validate({**plan.model_dump(), "experiments": {}})
    assert [said for said in changes(plan, without) if "status: stopped" in said]
    stopped = read_plan(WHOLE.replace("status: running", "status: stopped"))
    assert changes(stopped, without) == []
    assert "may not go on" in changes(stopped, plan)[0]
    assert changes(stopped, read_plan(WHOLE.replace("ga-1", "ga-2"))) == []


def run_through(*texts: str) -> Phases:
    """What a server knows that has had these plans in force, one after the other."""
    phases = Phases()
    for text in texts:
        phases = phases.after(read_plan(text))
    return Phases.parse(phases.dump(), "phases.json")


def test_a_seed_that_was_left_may_not_come_back() -> None:
    old, new = read_plan(WHOLE), read_plan(WHOLE.replace("ga-1", "ga-2"))
    phases = run_through(WHOLE, WHOLE.replace("ga-1", "ga-2"))
    assert changes(new, old) == []  # the plan in force alone does not tell
    assert "may not go on under the seed 'ga-1'" in phases.refused(old, new)[0]
    assert phases.refused(new, new) == []
    assert phases.refused(read_plan(WHOLE.replace("ga-1", "ga-3")), new) == []
    stopped = read_plan(WHOLE.replace("status: running", "status: stopped"))
    assert phases.refused(stopped, new) == []  # nobody is assigned
    assert "was that of 'gender-alpha'" in phases.refused(read_plan(WHOLE.replace("gender-alpha", "gender")), None)[0]


def test_a_stopped_experiment_that_was_taken_out_may_not_come_back_under_its_seed() -> None:
    plan = read_plan(WHOLE)
    stopped = WHOLE.replace("status: running", "status: stopped")
    without = Plan.model_validate({**plan.model_dump(), "experiments": {}})
    phases = run_through(WHOLE, stopped).after(without)
    assert "may not go on" in phases.refused(plan, without)[0]
    assert phases.refused(read_plan(WHOLE.replace("ga-1", "ga-2")), without) == []


def test_a_server_that_was_without_experiments_for_a_while_goes_on_with_the_same_ones_only() -> None:
    phases = run_through(WHOLE + "    status: running\n")
    assert phases.refused(read_plan(WHOLE + "    status: running\n"), None) == []
    assert phases.refused(read_plan(WHOLE.replace("coverage: 0.10", "coverage: 0.5")), None) == []
    [said] = phases.refused(read_plan(WHOLE.replace("alpha: 0.8", "alpha: 0.9")), None)
    assert "the steering of arm 'a08' may not change under the seed 'ga-1'" in said


def test_a_draft_uses_up_no_seed() -> None:
    phases = run_through(WHOLE.replace("status: running", "status: draft"))
    assert "ga-1" not in phases.phases
    assert phases.refused(read_plan(WHOLE), None) == []
