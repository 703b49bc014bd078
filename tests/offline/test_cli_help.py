"""What the command says of itself: its order, its version, and options that mean the same in every command."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import typer
from typer.testing import CliRunner, Result

from trimtab.offline.cli.app import app


def trimtab(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def subcommands(command: Any) -> Iterable[tuple[str, Any]]:
    return command.commands.items() if isinstance(command, typer.core.TyperGroup) else ()


def test_the_help_goes_through_the_pipeline_in_its_order() -> None:
    shown = trimtab("--help").stdout
    order = [
        "data", "represent", "relabel", "dictionary", "choose-k", "ground", "shift", "watch", "profile",
        "shift-profile", "import", "evaluate", "tune", "report", "ab", "inspect", "verify",
    ]  # fmt: skip
    assert re.findall(r"^│ ([a-z]\S*) ", shown, re.M) == order
    assert "Exit codes: 0 done." in shown
    assert "trimtab represent MODEL" in shown


def test_the_version_is_the_package_s() -> None:
    assert trimtab("--version").stdout == f"trimtab {version('trimtab')}\n"


def test_out_is_always_the_folder_that_a_command_writes() -> None:
    for name in ("represent", "dictionary", "shift", "watch", "evaluate"):
        assert "--out" in trimtab(name, "--help").stdout
    for name in ("choose-k", "ground", "profile", "shift-profile", "import", "report", "inspect", "verify"):
        assert "--out" not in trimtab(name, "--help").stdout


def test_an_option_means_the_same_in_every_command() -> None:
    """Its help begins with the same words; a command may add to them: "Folder for the states", "Number of concepts"."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    meanings: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    takers: dict[str, list[str]] = defaultdict(list)
    inner = {f"{outer} {name}": command for outer, one in group.commands.items() for name, command in subcommands(one)}
    for name, command in {**group.commands, **inner}.items():
        for option in command.params:
            if isinstance(option, typer.core.TyperOption):
                spelling = option.opts[0]
                meanings[spelling].add(tuple(word.rstrip(".,:;") for word in (option.help or "").split()[:2]))
                takers[spelling].append(name)
    assert len(takers["--layer"]) > 4
    assert {spelling: takers[spelling] for spelling, found in meanings.items() if len(found) > 1} == {}
