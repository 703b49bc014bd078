"""A run folder: all that one piece of work makes, under names.

    RUN/data/NAME           see `trimtab.offline.states.data_folder`
    RUN/states/NAME         see `trimtab.offline.states.store`
    RUN/dictionaries/NAME   see `trimtab.vectors.ConceptDictionary`
    RUN/profiles/NAME       RUN/profiles is a registry: `trimtab-serve MODEL --steering-profiles RUN/profiles`
    RUN/evaluations/NAME    see `trimtab.offline.evaluation.results`
    RUN/<kind>-*.json       see `trimtab.offline.findings`
    RUN/commands.jsonl      one line per command that wrote into RUN: date, version and command line

`trimtab report RUN` shows it. Nothing has to be there: a command makes what it needs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import DataError

__all__ = ["COMMANDS", "KINDS", "Command", "Kind", "find", "is_run", "names", "note_command", "read_commands"]

Kind = Literal["states", "dictionaries", "profiles", "evaluations"]
KINDS: tuple[Kind, ...] = ("states", "dictionaries", "profiles", "evaluations")
COMMANDS = "commands.jsonl"


class Command(BaseModel):
    """One line of commands.jsonl. date: UTC, to the second. command: as it was typed, without keys and passwords."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    date: str
    trimtab: str
    command: str


def names(run: Path, kind: Kind) -> tuple[str, ...]:
    """The names of what a run holds of one kind."""
    folder = run / kind
    return tuple(sorted(one.name for one in folder.iterdir() if one.is_dir())) if folder.is_dir() else ()


def is_run(folder: Path) -> bool:
    """Whether a folder has a room or the commands of a run folder; a folder of findings alone has neither."""
    return (folder / COMMANDS).is_file() or any((folder / kind).is_dir() for kind in KINDS)


def find(run: Path, kind: Kind, name: str | None = None) -> Path:
    """The folder of that name, or without a name the only one there is.

    Raises:
        DataError: there is none of that name, none at all, or several to choose from; the message lists them.
    """
    there = names(run, kind)
    listed = ", ".join(there)
    if name is None and len(there) == 1:
        return run / kind / there[0]
    if not there:
        raise DataError(f"{run}: holds no {kind} yet; run the command that makes them with --run {run}")
    if name is None:
        raise DataError(f"{run}: holds several {kind}; name one of {listed}")
    if name not in there:
        raise DataError(f"{run}: holds no {kind} called {name!r}; name one of {listed}")
    return run / kind / name


def note_command(run: Path, command: str) -> None:
    """Write down that a command wrote into a run."""
    run.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = Command(date=now, trimtab=version("trimtab"), command=command).model_dump_json()
    with (run / COMMANDS).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def read_commands(run: Path) -> tuple[Command, ...]:
    """What was run, in order; nothing where that was not noted. A torn last line is left out.

    Raises:
        DataError: another line is not ours.
    """
    path = run / COMMANDS
    if not path.exists():
        return ()
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        return tuple(map(Command.model_validate_json, lines))
    except ValidationError as error:
        raise DataError(f"{path}: holds a line that no command wrote; delete that line") from error
