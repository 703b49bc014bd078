"""The commands that README and docs show, and how each can be read without being run."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from trimtab.offline.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "examples").rglob("README.md"),
    ROOT / "bench/README.md",
]
SHELL, OTHER = {"", "console"}, {"json", "python", "yaml", "text"}
"""The languages of fenced blocks: those that hold commands, and the rest."""
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_OURS = re.compile(r"`((?:make|pip install|trimtab(?! cannot )|trimtab-serve|python -m examples|python bench/)[^`]*)`")


@dataclass(frozen=True)
class Command:
    """One command. words: as a shell would split them. section: the text around it, from heading to heading."""

    page: str
    words: tuple[str, ...]
    section: str

    @property
    def name(self) -> str:
        """The program, with its subcommand, target or module: "trimtab watch", "make demo", "python -m examples.x"."""
        program, *rest = self.words
        count = {"trimtab": 1, "make": 1, "python": 2 if rest[:1] == ["-m"] else 1}.get(program, 0)
        return " ".join([program, *rest[:count]])

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def fenced() -> Iterator[Command]:
    """Every command of a fenced block."""
    for page, section in _sections():
        for language, block in _BLOCK.findall(section):
            assert language in SHELL | OTHER, f"{page}: a block in the unknown language {language!r}"
            if language in SHELL:
                yield from (Command(page, words, section) for words in _commands(block, language == "console"))


def inline() -> Iterator[Command]:
    """Every command of ours that stands within a sentence or a table."""
    for page, section in _sections():
        for text in _OURS.findall(_BLOCK.sub("", section)):
            words = tuple(shlex.split(text.replace("…", "")))
            if words[1:]:
                yield Command(page, words, section)


def of_recipe(target: str) -> list[Command]:
    """The programs of ours that `make TARGET` would start."""
    said = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    said = re.sub(r"\$\([^)]*\)", "auto", said.replace("\\\n", " "))
    found = re.findall(r"(?:^|[;&] *)\s*\.venv/bin/((?:trimtab|trimtab-serve|python) [^;&\n]+)", said, re.M)
    commands = [Command("Makefile", tuple(shlex.split(text)), "") for text in found]
    return [command for command in commands if "pip" not in command.words]


def trimtabs_own(words: tuple[str, ...]) -> None:
    """Read a command line of `trimtab` with its own parser, to the end, and check no file.

    Raises:
        Exception: typer's own, for an unknown command or option, a missing one, or a value that is none.
    """
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    command = group.commands[words[1]]
    for one in (command, *_inner(command).values()):
        for parameter in one.params:
            parameter.callback = None  # these ask whether files are there
    context = command.make_context(words[1], list(words[2:]))
    if inner := _inner(command):  # a group keeps the rest of the line for its own command
        name, *rest = [*context._protected_args, *context.args]
        inner[name].make_context(name, rest)


def options_of(name: str) -> set[str]:
    """Every spelling of an option of `trimtab NAME`; of `trimtab` itself for ""."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    named = [group.commands[name], *_inner(group.commands[name]).values()] if name else [group]
    parameters = [parameter for one in named for parameter in one.params]
    return {"--help", *(spelling for parameter in parameters for spelling in parameter.opts)}


def _inner(command: Any) -> dict[str, Any]:
    """The commands of a group, such as `trimtab ab`; none of a command."""
    return dict(command.commands) if isinstance(command, typer.core.TyperGroup) else {}


def _sections() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        fence, section = False, ""
        for line in page.read_text().splitlines(keepends=True):
            fence ^= line.startswith("```")
            if line.startswith("#") and not fence:
                yield str(page.relative_to(ROOT)), section
                section = ""
            section += line
        yield str(page.relative_to(ROOT)), section


def _commands(block: str, prompted: bool) -> Iterator[tuple[str, ...]]:
    for line in block.replace("\\\n", " ").splitlines():
        assert not prompted or line.startswith("$ "), f"a line without a prompt: {line!r}"
        # [--an-option] may be given, and of a|b the first; N is a number.
        text = re.sub(r"(?<=\S)\|\S+", "", re.sub(r"\[(.*?)\]", r"\1", line.removeprefix("$ ")))
        if words := shlex.split(re.sub(r"\bN\b", "1", text), comments=True):
            yield tuple(words)
