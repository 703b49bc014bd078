"""Where commands read and write: plain paths, or names in a run folder (see `trimtab.offline.run`)."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import DataError, SettingError
from ..run import Kind, find, names, note_command

__all__ = ["NameInRun", "Run", "command_line", "made_at", "noted", "read_at", "slug"]

Run = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Run folder, in place of single paths: what is made goes into it under a name."),
]
NameInRun = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Name of what is made, in the folder of --run; there is a default."),
]

_ONE_OF = {
    "states": "give the folder that `trimtab represent` made",
    "dictionaries": "give the folder that `trimtab dictionary` made",
    "profiles": "give the folder of a profile",
    "evaluations": "give the --out of an unsteered run",
}
_SECRET = re.compile(r"(?:.*=)?--?[a-z-]*(key|token|password)(=|$)")
_ADDRESS = re.compile(r"(://)([^/@\s]*@)?([^?\s]*)(\?\S*)?")
_HIDDEN = "…"


def made_at(
    run: Path | None, kind: Kind | Literal["data"] | None, given: Path | None, option: str, name: str = ""
) -> Path:
    """Where a command writes: the given path, else RUN/kind/name; RUN/kind without a name, RUN without a kind.

    Raises:
        SettingError: both or neither of `option` and --run were given, or the name is no name of a folder.
    """
    if (run is None) == (given is None):
        raise SettingError(f"{option} or --run: give {'one of the two' if given else 'one of them'}")
    if given is not None:
        return given
    assert run is not None
    if name and (Path(name).name != name or name in (".", "..")):
        raise SettingError(f"--as {name}: must be the name of one folder, without /")
    return run / (kind or "") / name


def read_at(run: Path | None, kind: Kind, given: Path | None, what: str) -> Path:
    """Where a command reads: the folder of that name in RUN, else the given folder, else the only one in RUN.

    what: how the command line calls it, such as "STATES".

    Raises:
        SettingError: nothing was given, and no --run. DataError: no such folder; what `run.find` raises.
    """
    if run is None:
        if given is None:
            raise SettingError(f"{what}: {_ONE_OF[kind]}, or --run and its name there")
        if not given.is_dir():
            raise DataError(f"{given}: {'is no folder' if given.exists() else 'does not exist'}; {_ONE_OF[kind]}")
        return given
    if given is not None and str(given) not in names(run, kind) and given.is_dir():
        return given
    return find(run, kind, None if given is None else str(given))


def noted(run: Path | None) -> None:
    """Write the command line down in the run folder, where there is one."""
    if run is not None:
        note_command(run, command_line(sys.argv[1:]))


def command_line(words: Iterable[str]) -> str:
    """A command as it was typed, without keys, passwords, and users or queries of addresses."""
    told, secret = ["trimtab"], False
    for word in words:
        if secret and not word.startswith("--"):
            told.append(_HIDDEN)
            secret = False
            continue
        found = _SECRET.match(word)
        if found is not None:
            secret = not found[2]
            told.append(word[: found.end()] + (_HIDDEN if found[2] else ""))
        else:
            told.append(_ADDRESS.sub(r"\1\3", word))
    return shlex.join(told)


def slug(text: str, longest: int = 40) -> str:
    """A text as a name: letters, digits, dots and hyphens, such as "predicts-man-woman"."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text.replace("*", "all")).strip("-.")[:longest].strip("-.") or "unnamed"
