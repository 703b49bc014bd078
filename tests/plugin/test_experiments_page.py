"""docs/experiments.md: its plan is a plan, its command says so, its lines are lines, and it names every field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.vectors.test_plan import WHOLE
from trimtab.plugin.serve import main
from trimtab.vectors import AlphaRange, ModelIdentity, Profile, SteeringVector, save_profile
from trimtab.vectors.experiments import Arm, Closing, Experiment, Exposure, Guardrail, Layer, Metrics, Plan, Primary

PAGE = (Path(__file__).resolve().parents[2] / "docs/experiments.md").read_text()
[PLAN] = re.findall(r"```yaml\n(version: 1.*?)```", PAGE, re.S)


@pytest.fixture(autouse=True)
def _home(model: ModelIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(PLAN)
    profile = Profile.coarse("gender-neutral", [SteeringVector(1, [1.0, 0, 0, 0])], model=model, alpha=AlphaRange())
    save_profile(profile, Path("profiles") / profile.name)


def check(*arguments: str) -> int:
    return main(["experiments", "check", *arguments])


def test_the_plan_is_one_and_its_command_says_what_it_means(capsys: pytest.CaptureFixture[str]) -> None:
    [command] = re.findall(r"^trimtab-serve (experiments .*)$", PAGE, re.M)
    assert main(command.split()) == 0
    said = capsys.readouterr().out
    assert "gender-alpha: running; 4.9 % of all units, in layer strength" in said  # 0.98 · 0.5 · 0.10
    assert re.search(r"control \(control\) +50 % +\"none\"", said)
    assert "2 % of the units are held out" in said


def test_a_plan_that_does_not_fit_is_not_taken(capsys: pytest.CaptureFixture[str]) -> None:
    Path("next.yaml").write_text(PLAN.replace("coverage: 0.10", "coverage: 0.05"))
    assert check("next.yaml", "--after", "plan.yaml") == 1
    assert "the coverage may only grow" in capsys.readouterr().out
    Path("next.yaml").write_text(PLAN.replace("gender-neutral", "gender-neutrl"))
    assert check("next.yaml") == 0
    assert "were not checked" in capsys.readouterr().out
    assert check("next.yaml", "--profiles", "profiles") == 1
    assert "did you mean 'gender-neutral'" in capsys.readouterr().out
    Path("next.yaml").write_text(WHOLE.replace("version: 1", "version: 2"))
    assert check("next.yaml") == 1
    assert "line 1: version" in capsys.readouterr().out
    policy = 'version: 1\nrules: [{subjects: ["*"], default: {experiment: gender-alfa}}]\n'
    Path("policy.yaml").write_text(policy)
    assert check("plan.yaml", "--policy", "policy.yaml") == 1
    assert "names experiment 'gender-alfa'" in capsys.readouterr().out


@pytest.mark.parametrize("part", [Plan, Layer, Experiment, Arm, Metrics, Primary, Guardrail, Exposure, Closing])
def test_every_field_is_on_the_page(part: type[BaseModel]) -> None:
    for name in part.model_fields:
        assert re.search(rf"\b{name}\b", PAGE), name


def test_the_lines_on_the_page_are_lines_of_a_log() -> None:
    exposure, closing = re.findall(r'^\{"timestamp".*$', PAGE, re.M)
    whole = "0" * 32
    assert Exposure.from_line(exposure.replace("5f0c…", whole)).model_fields_set == set(Exposure.model_fields)
    assert Closing.from_line(closing.replace("5f0c…", whole)).model_fields_set == set(Closing.model_fields)
