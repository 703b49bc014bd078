"""Every command of README and docs can be typed as it stands, and is run by a test or says that none runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import pytest

from tests.commands import ROOT, Command, fenced, inline, of_recipe, options_of, trimtabs_own

# Who runs a command, and under which word.
RUN_BY = {
    "make demo": (".ci/run", "make demo"),
    "python -m examples.tinyworld.data": ("tests/tinyworld/test_programs.py", "examples.tinyworld.data"),
    "python -m examples.tinyworld.demo": (".ci/run", "make demo"),
    "python -m examples.tinyworld.formats": ("tests/tinyworld/test_programs.py", "examples.tinyworld.formats"),
    "trimtab ab": ("tests/offline/experiments/test_analysis.py", '["ab", '),
    "trimtab choose-k": ("tests/offline/test_concept_commands.py", '"choose-k"'),
    "trimtab data": ("tests/offline/test_data.py", '"data"'),
    "trimtab dictionary": ("tests/offline/test_concept_commands.py", '"dictionary"'),
    "trimtab evaluate": ("tests/engine/test_evaluate.py", '"evaluate"'),
    "trimtab ground": ("tests/offline/test_concept_commands.py", '"ground"'),
    "trimtab import": ("tests/offline/test_cli.py", '"import"'),
    "trimtab inspect": ("tests/offline/test_cli.py", '"inspect"'),
    "trimtab profile": ("tests/offline/test_cli.py", '"profile"'),
    "trimtab relabel": ("tests/offline/test_cli.py", '"relabel"'),
    "trimtab report": ("tests/offline/test_report.py", '"report"'),
    "trimtab represent": ("tests/offline/conftest.py", '"represent"'),
    "trimtab shift": ("tests/offline/test_shift_cli.py", '"shift"'),
    "trimtab shift-profile": ("tests/offline/test_shift_cli.py", '"shift-profile"'),
    "trimtab tune": ("tests/tinyworld/test_study.py", '"tune"'),
    "trimtab verify": ("tests/offline/test_cli.py", '"verify"'),
    "trimtab watch": ("tests/offline/test_shift_cli.py", '"watch"'),
    "trimtab-serve": ("tests/engine/test_installed.py", '"trimtab-serve"'),
    "vllm-router": ("tests/routed.py", '"vllm_router.launch_router"'),
}
NOT_RUN = re.compile(r"\bnot\s+run\b|\bno\s+test\s+runs\b|\bnone\s+of\s+them\s+was\s+run\b", re.I)
# Of other projects: whether these can be typed is not ours to tell, so their section says who ran them.
FOREIGN = {"export", "inspect", "python steered_lmms_eval.py"}


def test_pages_show_commands_of_every_kind() -> None:
    assert {command.words[0] for command in fenced()} >= {"make", "python", "trimtab", "trimtab-serve"}
    assert {command.words[0] for command in inline()} >= {"make", "pip", "python", "trimtab", "trimtab-serve"}
    assert "trimtab-serve" in [command.name for command in of_recipe("serve")]


@pytest.mark.parametrize("name", RUN_BY)
def test_whoever_runs_a_command_names_it(name: str) -> None:
    file, word = RUN_BY[name]
    assert word in (ROOT / file).read_text()


@pytest.mark.parametrize("command", fenced(), ids=str)
def test_a_command_is_run_by_a_test_or_its_section_says_that_it_is_not(command: Command) -> None:
    if command.name in RUN_BY or NOT_RUN.search(command.section):
        return
    assert command.words[0] == "make", f"no test runs {command}; add one, or say in that section that no test runs it"
    assert {one.name for one in of_recipe(command.words[1])} <= set(RUN_BY)


@pytest.mark.parametrize("command", [one for one in [*fenced(), *inline()] if one.words[0] == "make"], ids=str)
def test_targets_and_variables_of_make_exist(command: Command) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in command.words[1:]:
        name, value, _ = word.partition("=")
        assert re.search(rf"^(ifndef )?{name}\b( \?=|$)" if value else rf"^{name}:", makefile, re.M), word


@pytest.mark.parametrize("command", [one for one in fenced() if one.words[0] == "trimtab"], ids=str)
def test_the_command_reads_what_a_page_shows(command: Command) -> None:
    trimtabs_own(command.words)


@pytest.mark.parametrize("command", [one for one in inline() if one.words[0] == "trimtab"], ids=str)
def test_commands_and_options_in_a_sentence_exist(command: Command) -> None:
    name = command.words[1] if not command.words[1].startswith("-") else ""
    assert {word.partition("=")[0] for word in command.words if word.startswith("-")} <= options_of(name)


@pytest.mark.parametrize("command", [one for one in inline() if one.words[0] == "pip"], ids=str)
def test_extras_exist(command: Command) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in re.findall(r"trimtab\[(.*?)\]", " ".join(command.words)):
        assert extra in project["optional-dependencies"]


def test_programs_read_what_pages_and_recipes_show() -> None:
    shown = [one for one in [*fenced(), *inline()] if one.words[0] in ("python", "trimtab-serve")]
    recipes = [one for target in ("demo", "serve", "study", "bench", "conformance") for one in of_recipe(target)]
    for one in recipes:
        if one.words[0] == "trimtab":
            trimtabs_own(one.words)
    commands = [one for one in [*shown, *recipes] if one.words[0] != "trimtab" and one.name not in FOREIGN]
    done = subprocess.run(
        [sys.executable, "-m", "tests.read_programs"],
        cwd=ROOT,
        input=json.dumps([one.words for one in commands]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(zip(map(str, commands), json.loads(done.stdout.splitlines()[-1]), strict=True))
    assert len(found) > 20
    assert {command: said for command, said in found.items() if said} == {}
