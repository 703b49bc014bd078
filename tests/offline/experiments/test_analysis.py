"""A whole experiment, simulated: what is found, what is said to bias, and what the command and its page show."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from typer.testing import CliRunner, Result

from tests.reliability.exposed import PLAN, simulated
from trimtab.offline.cli.app import app
from trimtab.offline.errors import DataError, SettingError
from trimtab.offline.experiments import Outcomes, analysed, designed
from trimtab.offline.experiments.sequence import half_width
from trimtab.offline.findings import ArmFound, ExperimentFound, read_findings
from trimtab.vectors.experiments import Closing, Exposure, Plan, UnitKey, read_plan

REQUESTS = 8000
RATE = {"control": 0.3, "a04": 0.29, "a08": 0.15}
GUARDED = PLAN.replace(
    "primary: {name: asked_for, better: lower}",
    "primary: {name: asked_for, better: lower}, guardrails: {generated_tokens: {margin: 2, better: higher}, "
    "first_token_s: {margin: 0.02}, refused: {margin: 0.02}}",
)
UNEVEN = GUARDED.replace("control: {weight: 1", "control: {weight: 8")

Lines = Sequence[Exposure | Closing]


def shown(lines: Lines) -> list[Exposure]:
    return [one for one in lines if isinstance(one, Exposure)]


def closed(lines: Lines) -> list[Closing]:
    return [one for one in lines if isinstance(one, Closing)]


def outcomes_of(exposures: Sequence[Exposure], rate: dict[str, float] = RATE, seed: int = 1) -> Outcomes:
    rng = np.random.default_rng(seed)
    rates = np.array([rate[one.assigned] for one in exposures])
    draw = rng.random((2, len(exposures)))
    values = {"asked_for": (draw[0] < rates).astype(float), "refused": (draw[1] < 0.01).astype(float)}
    ids = [one.exposure_id for one in exposures]
    return Outcomes(ids, [""] * len(ids), np.full(len(ids), np.nan), values)


def found_in(lines: Lines, plan: Plan, outcomes: Outcomes | None = None, decide: str = "sequence") -> ExperimentFound:
    design = designed(shown(lines), plan, by="planned" if decide == "planned" else "sequence")
    return analysed(
        shown(lines), closed(lines), outcomes or outcomes_of(shown(lines)), design, lambda _, alpha: alpha / 2
    )


def arm(found: ExperimentFound, name: str) -> ArmFound:
    return next(one for one in found.arms if one.name == name)


def states(found: ExperimentFound, name: str) -> dict[str, str]:
    return {one.name: one.state for one in arm(found, name).metrics}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_plan(GUARDED)


@pytest.fixture(scope="module")
def lines(plan: Plan) -> Lines:
    return simulated(plan, "sweep", REQUESTS)


@pytest.fixture(scope="module")
def found(lines: Lines, plan: Plan) -> ExperimentFound:
    return found_in(lines, plan)


def test_the_strength_that_works_is_shipped_and_the_other_is_not(found: ExperimentFound) -> None:
    assert found.verdict == "ship"
    assert found.why[0].startswith("Ship a08. It was chosen among several")
    assert arm(found, "a04").verdict == "undecided"
    assert states(found, "a08") == {
        "asked_for": "better",
        "generated_tokens": "safe",
        "first_token_s": "safe",
        "refused": "safe",
    }
    best = arm(found, "a08").metrics[0]
    assert best.sequence is not None
    assert best.fixed is not None
    assert best.sequence[0] < best.fixed[0] < RATE["a08"] - RATE["control"] < best.fixed[1] < best.sequence[1] < 0


def test_every_look_narrows_and_the_last_one_is_what_is_said(found: ExperimentFound) -> None:
    looks = arm(found, "a08").looks
    widths = [one.high - one.low for one in looks]
    assert len(looks) in (19, 20)  # the first has hardly 30 units per arm
    assert widths[0] > 2 * widths[9] > 2 * widths[-1]
    assert (looks[-1].low, looks[-1].high) == pytest.approx(arm(found, "a08").metrics[0].sequence)
    assert looks[-1].units == found.units


def test_arms_share_the_false_alarms_at_every_look_and_guardrails_do_not(found: ExperimentFound) -> None:
    """Two arms of three, so two thirds of the planned units, and half of the false alarms each."""
    first, guard = arm(found, "a08").metrics[:2]
    for one, alpha in ((first, 0.025), (guard, 0.05)):
        assert one.sequence is not None
        assert one.p is not None
        assert one.difference is not None
        error = abs(one.difference) / float(norm.isf(one.p / 2))
        half = float(half_width(error, sum(one.units), 5000 * 2 / 3, alpha))
        assert (one.sequence[1] - one.sequence[0]) / 2 == pytest.approx(half, rel=1e-3)


def test_several_arms_have_joint_intervals_at_the_planned_size(found: ExperimentFound) -> None:
    first, guard = arm(found, "a08").metrics[:2]
    for one, times in ((first, 2.21), (guard, 1.96)):
        assert one.fixed is not None
        assert one.p is not None
        assert one.difference is not None
        error = abs(one.difference) / float(norm.isf(one.p / 2))
        assert (one.fixed[1] - one.fixed[0]) / 2 == pytest.approx(times * error, rel=0.03)


def test_the_trend_and_the_dose(found: ExperimentFound) -> None:
    assert [(one.alpha, one.dose) for one in found.arms] == [(0.0, 0.0), (0.4, 0.2), (0.8, 0.4)]
    assert found.trend is not None
    assert found.trend.high < 0


def test_a_guardrail_that_lost_too_much_stops_an_arm_that_is_better(lines: Lines, plan: Plan) -> None:
    outcomes = outcomes_of(shown(lines))
    values = dict(outcomes.values)
    values["refused"] = values["refused"] + np.array([0.2 * (one.assigned == "a08") for one in shown(lines)])
    found = found_in(lines, plan, replace(outcomes, values=values))
    assert arm(found, "a08").verdict == "stop"
    assert states(found, "a08")["refused"] == "broken"
    assert found.verdict == "undecided"


def test_lost_exposures_leave_all_undecided_and_say_where(lines: Lines, plan: Plan) -> None:
    first = {one.unit: one.replica for one in reversed(shown(lines))}
    lost = {one.exposure_id for one in shown(lines) if one.assigned == "a08" and first[one.unit] == "replica-1"}
    kept = [one for one in lines if one.exposure_id not in lost]
    found = found_in(kept, plan)
    assert (found.verdict, arm(found, "a08").verdict) == ("undecided", "undecided")
    assert found.mismatch < 0.001
    assert any("replica replica-1" in hint for hint in found.hints)


def test_lost_exposures_are_seen_where_as_many_outcomes_of_each_arm_came(lines: Lines, plan: Plan) -> None:
    lost = {one.unit for one in shown(lines) if one.assigned == "a08" and int(one.unit[:2], 16) < 80}
    kept = [one for one in lines if not isinstance(one, Exposure) or one.unit not in lost]
    first = {name: {one.unit: None for one in shown(kept) if one.assigned == name} for name in RATE}
    few = {unit for units in first.values() for unit in list(units)[:300]}
    found = found_in(kept, plan, outcomes_of([one for one in shown(kept) if one.unit in few]))
    assert [one.measured for one in found.arms] == [300, 300, 300]
    assert found.missing > 0.9
    assert found.mismatch < 0.001
    assert {one.verdict for one in found.arms[1:]} == {"undecided"}


def test_lost_outcomes_leave_all_undecided_too(lines: Lines, plan: Plan) -> None:
    kept = [one for i, one in enumerate(shown(lines)) if one.assigned != "a08" or i % 3]
    kept = [one for one in kept if one.assigned != "a08" or int(one.unit[:2], 16) > 80]
    found = found_in(lines, plan, outcomes_of(kept))
    assert found.mismatch > 0.001 > found.missing
    assert found.verdict == "undecided"
    assert any("outcomes of an arm are lost" in hint for hint in found.hints)


def test_aborts_of_one_arm_are_pointed_out(lines: Lines, plan: Plan) -> None:
    arms = {one.exposure_id: one.assigned for one in shown(lines)}
    aborted = [
        one.model_copy(update={"finish_reason": "abort"})
        if isinstance(one, Closing) and arms[one.exposure_id] == "a08" and int(one.exposure_id[-1], 16) < 2
        else one
        for one in lines
    ]
    hints = found_in(aborted, plan).hints
    assert any("Arms differ in how many requests were aborted" in hint for hint in hints)
    assert not any("aborted" in hint for hint in found_in(lines, plan).hints)


def test_speed_is_compared_at_equal_weights_alone() -> None:
    plan = read_plan(UNEVEN)
    found = found_in(simulated(plan, "sweep", REQUESTS), plan)
    assert found.mismatch > 0.001
    assert arm(found, "a08").served.first_token is None
    assert arm(found, "a08").served.cached is None
    speed = next(one for one in arm(found, "a08").metrics if one.name == "first_token_s")
    assert (speed.state, speed.difference) == ("unclear", None)
    assert "prefix cache" in speed.note
    assert any("colder cache" in hint for hint in found.hints)


def test_speed_is_told_at_equal_weights(found: ExperimentFound) -> None:
    assert arm(found, "a08").served.first_token is not None
    assert arm(found, "a08").served.cached == pytest.approx(256 / 400)


def test_the_planned_size_decides_once_and_by_its_first_units(lines: Lines, plan: Plan) -> None:
    text = GUARDED.replace("planned_units: 5000", "planned_units: 1500")
    early = found_in(lines, plan, decide="planned")
    assert (early.verdict, early.planned_units) == ("undecided", 5000)
    assert all("not reached" in arm(early, name).why[0] for name in ("a04", "a08"))
    late = found_in(lines, read_plan(text), decide="planned")
    assert (late.units, late.verdict) == (1500, "ship")
    more = [*lines, *simulated(plan, "sweep", 10)]  # the same ids again, which are duplicates
    again = found_in(more, read_plan(text), outcomes_of(shown(lines)), decide="planned")
    assert again.arms == late.arms
    assert again.counted["exposures logged twice, counted once"] == 10


def test_of_two_arms_that_may_ship_the_better_one_is_named(lines: Lines, plan: Plan) -> None:
    found = found_in(lines, plan, outcomes_of(shown(lines), {"control": 0.5, "a04": 0.1, "a08": 0.2}))
    assert [arm(found, name).verdict for name in ("a04", "a08")] == ["ship", "ship"]
    assert found.why[0].startswith("Ship a04.")


def test_a_profile_s_own_strength_is_the_one_that_the_log_has(lines: Lines) -> None:
    plan = read_plan(GUARDED.replace("{profile: weak-a, alpha: 0.8}", "weak-a"))
    design = designed(shown(lines), plan)
    assert [one.alpha for one in design.arms] == [0.0, 0.4, 0.8]


def test_without_a_plan_the_log_says_which_arms_there_are(lines: Lines) -> None:
    design = designed(shown(lines), None, metric="asked_for", better="lower")
    assert [(one.name, one.steering, one.alpha) for one in design.arms] == [
        ("control", "none", 0.0),
        ("a04", "weak-a at 0.4", 0.4),
        ("a08", "weak-a at 0.8", 0.8),
    ]
    assert any("equal weights are assumed" in one for one in design.assumed)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({}, SettingError, "--primary"),
        ({"metric": "m", "experiment": "other"}, DataError, "no exposure of 'other'; it holds those of sweep"),
        ({"metric": "m", "by": "planned"}, SettingError, "--planned-units"),
    ],
)
def test_what_a_log_alone_does_not_say_is_asked_for(
    given: dict[str, str], error: type[Exception], said: str, lines: Lines
) -> None:
    with pytest.raises(error, match=said):
        designed(shown(lines), None, **given)  # type: ignore[arg-type]  # options by name, as a table


def test_outcomes_that_belong_to_nothing_are_refused(lines: Lines, plan: Plan) -> None:
    strangers = Outcomes([""], ["user-1"], np.array([np.nan]), {"asked_for": np.ones(1)})
    with pytest.raises(DataError, match="--unit-key"):
        found_in(lines, plan, strangers)


@pytest.fixture(scope="module")
def folder(lines: Lines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in two files, outcomes, a plan and a key, as they lie on a disk."""
    made = tmp_path_factory.mktemp("experiment")
    log = made / "exposures"
    log.mkdir()
    half = len(lines) // 2
    for name, some in (("exposures.jsonl.1", lines[:half]), ("exposures.jsonl", lines[half:])):
        (log / name).write_text("".join(one.to_line() + "\n" for one in some))
    outcomes = outcomes_of(shown(lines))
    rows = [
        {
            "exposure_id": name,
            "asked_for": bool(outcomes.values["asked_for"][i]),
            "refused": outcomes.values["refused"][i],
        }
        for i, name in enumerate(outcomes.exposures)
    ]
    (made / "outcomes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made / "plan.yaml").write_text(GUARDED)
    return made


def ab(folder: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["ab", *map(str, arguments)])


def test_the_command_says_the_verdict_and_its_page_and_finding_hold_the_rest(folder: Path) -> None:
    files = (folder / "exposures", folder / "outcomes.jsonl", "--plan", folder / "plan.yaml")
    told = ab(folder, *files, "--run", folder / "run", "--page", folder / "page.html")
    assert told.exit_code == 0, told.stderr
    assert "Verdict: ship. Ship a08." in told.stdout
    assert "Trend per 1 of alpha" in told.stdout
    page = (folder / "page.html").read_text()
    assert [page.count(f'data-chart="{kind}"') for kind in ("narrowing", "dose", "guardrails")] == [2, 1, 1]
    assert isinstance(read_findings(folder / "run")["experiment-sweep"], ExperimentFound)
    as_json = ab(folder, "result", *files, "--json")
    assert ExperimentFound.model_validate_json(as_json.stdout) == read_findings(folder / "run")["experiment-sweep"]


def test_the_command_plans_the_next_experiment(folder: Path) -> None:
    files = (folder / "exposures", folder / "outcomes.jsonl", "--plan", folder / "plan.yaml")
    told = ab(folder, "power", *files, "--effect", 0.02)
    assert told.exit_code == 0, told.stderr
    assert "units in 2 arms show a difference of 0.02" in told.stdout
    both = ab(folder, "power", *files, "--effect", 0.02, "--units", 100)
    assert (both.exit_code, "give one of them" in both.stderr) == (1, True)


def test_outcomes_by_unit_are_given_the_pseudonyms_of_the_key(folder: Path, lines: Lines) -> None:
    secret = "simulated" * 4
    names = {UnitKey(secret).pseudonym(f"unit-{i}"): f"unit-{i}" for i in range(REQUESTS)}
    units = {one.unit: one.assigned for one in shown(lines)}
    rows = ["unit,asked_for,refused", *(f"{names[unit]},{int(one == 'a08')},0" for unit, one in units.items())]
    (folder / "by-unit.csv").write_text("\n".join(rows) + "\n")
    (folder / "key").write_text(secret + "\n")
    files = (folder / "exposures", folder / "by-unit.csv", "--plan", folder / "plan.yaml")
    assert "--unit-key" in ab(folder, *files).stderr
    told = ab(folder, *files, "--unit-key", folder / "key", "--json")
    assert told.exit_code == 0, told.stderr
    found = ExperimentFound.model_validate_json(told.stdout)
    assert [one.measured for one in found.arms] == [one.units for one in found.arms]
    assert secret not in told.output


def test_without_the_extra_the_command_names_it(folder: Path) -> None:
    program = "import sys; sys.modules['tea_tasting'] = None; from trimtab.offline.cli import main; main()"
    arguments = ["ab", str(folder / "exposures"), str(folder / "outcomes.jsonl")]
    told = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert told.returncode == 2
    assert "pip install 'trimtab[ab]'" in told.stderr
