"""docs/policy.md: its example is a policy, its commands give what it says, and it names every field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from trimtab.plugin.control.policy import parse_policy
from trimtab.plugin.control.policy.model import Added, Caller, Grant, Limits, Policy, Rule
from trimtab.plugin.serve import main
from trimtab.vectors import AlphaRange, ModelIdentity, Profile, Registry, SteeringVector, save_profile

PAGE = (Path(__file__).resolve().parents[2] / "docs/policy.md").read_text()


@pytest.fixture
def registry(model: ModelIdentity) -> Registry:
    directions = {"gender-neutral": [1.0, 0, 0, 0], "safe": [0, 1.0, 0, 0], "style-plain": [0, 0, 1.0, 0]}
    return Registry(
        Profile.coarse(name, [SteeringVector(1, values)], model=model, hidden_norms={1: 5.0}, alpha=AlphaRange())
        for name, values in directions.items()
    )


def test_the_example_is_a_policy_and_its_commands_say_what_the_page_says(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    parse_policy(example.encode(), registry)
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(example)
    for profile in registry.values():
        save_profile(profile, Path("profiles") / profile.name)
    commands = re.findall(r"^trimtab-serve (policy .*)$", PAGE, re.M)
    assert [main(command.split()) for command in commands] == [0, 0]
    assert "gender-neutral at 1\n" in capsys.readouterr().out
    assert main([*commands[1].split()[:-1], "safe@0.5"]) == 1


@pytest.mark.parametrize("part", [Policy, Caller, Rule, Grant, Added, Limits])
def test_every_field_is_on_the_page(part: type[BaseModel]) -> None:
    for name in part.model_fields:
        assert re.search(rf"\b{name}\b", PAGE), name
