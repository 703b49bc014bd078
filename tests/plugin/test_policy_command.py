"""`trimtab-serve policy` says without a server what a policy means, and what a request would get."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.policies import KEYS, digest_of
from trimtab.plugin.serve import main
from trimtab.vectors import ModelIdentity, save_profile

from .policies import small_registry

POLICY = f"""\
version: 1
subjects:
  team-a: {{keys: ["{digest_of(KEYS["team-a"])}"]}}
rules:
  - subjects: [team-a]
    allow: {{across: {{alpha: [0, 1.2]}}, "x-*": {{}}}}
  - name: everybody
    subjects: ["*"]
    allow: {{style-plain: {{}}}}
default: {{profile: style-plain, alpha: 0.5}}
enforced: [{{profile: safe, alpha: 1}}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def profiles(tmp_path: Path, model: ModelIdentity) -> Path:
    for profile in small_registry(model).values():
        save_profile(profile, tmp_path / "profiles" / profile.name)
    return tmp_path / "profiles"


def test_check_says_what_a_policy_means(file: Path, profiles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", str(file), "--profiles", str(profiles)]) == 0
    said = capsys.readouterr().out
    for part in (
        f"{file} is whole, digest ",
        "across (0 to 1.2), x-* (its own range)",
        "everybody",
        "default: style-plain at 0.5",
        "enforced: safe at 1",
        "limits: profiles 3, against_enforced 0.05",
        "rule-1: 'x-*' matches no profile now",
        "the rule for all allows style-plain; rule-1 does not in the same way",
    ):
        assert part in said
    assert main(["policy", "check", str(file)]) == 0
    assert "names and strengths were not checked" in capsys.readouterr().out


def test_check_names_each_fault_with_file_and_line(
    file: Path, profiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(POLICY.replace("across", "acros").replace("profile: safe", "profile: sure"))
    assert main(["policy", "check", str(file)]) == 0
    capsys.readouterr()
    assert main(["policy", "check", str(file), "--profiles", str(profiles)]) == 1
    said = capsys.readouterr().out
    assert f"{file}:6: rules.0.allow.acros: unknown profile 'acros'; did you mean 'across'?" in said
    assert f"{file}:11: enforced.0.profile: unknown profile 'sure'" in said
    assert main(["policy", "check", str(file.with_name("none.yaml"))]) == 1
    assert "none.yaml: cannot be read (No such file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        ([], 0, ["subject: anonymous", "defaulted", "added by the server: style-plain at 0.5, safe at 1"]),
        (["--request", '{"model": "m", "messages": []}'], 0, ["defaulted"]),
        (["--subject", "team-a", "--request", "across"], 0, ["rule: rule-1", "as asked: across at 1\n"]),
        (["--subject", "team-a", "--request", '{"profile": "across", "alpha": 1.3}'], 1, ["with 403", "0 to 1.2"]),
        (["--subject", "team-a", "--request", '{"steering": ["across"], "model": "m"}'], 0, ["across at 1"]),
        (["--subject", "local", "--request", "across"], 1, ["rule: everybody", "refused with 403"]),
        (["--request", "none"], 1, ['may not ask for "none"']),
        (["--subject", "team-a", "--request", "x-new"], 1, ["refused with 400", "unknown profile 'x-new'"]),
    ],
)  # fmt: skip
def test_explain_says_what_a_request_gets_and_by_which_rule(
    file: Path,
    profiles: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    parts: list[str],
) -> None:
    assert main(["policy", "explain", str(file), "--profiles", str(profiles), *options]) == code
    said = capsys.readouterr().out
    assert all(part in said for part in parts), said


def test_explain_says_what_it_cannot_tell_without_the_profiles(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "explain", str(file), "--subject", "team-a", "--request", "x-new"]) == 0
    said = capsys.readouterr().out
    assert "allowed" in said
    for part in ("whether the profiles exist", "default strength", "limits.against_enforced"):
        assert f"not told here: {part}" in said or part in said
    assert main(["policy", "explain", str(file), "--request", "No Profile"]) == 1
    assert main(["policy", "explain", str(file), "--subject", "team-a", "--request", "across"]) == 0


def test_report_mode_says_what_would_be_refused(file: Path, profiles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(POLICY.replace("version: 1", "version: 1\nmode: report"))
    assert main(["policy", "explain", str(file), "--profiles", str(profiles), "--request", "none"]) == 1
    assert "would be refused (mode: report)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required"),
        (["look"], "invalid choice"),
        (["check"], "FILE"),
        (
            ["explain", "{file}", "--subject", "team-x"],
            "'team-x' is no subject of this policy: anonymous, local, team-a",
        ),
        (["explain", "{file}", "--request", "{"], "is not JSON"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_code_2(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["policy", *(argument.replace("{file}", str(file)) for argument in arguments)])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
