"""Reads command lines of Python programs with their own parsers, and runs none of the programs.

It imports whatever they import, so it gets a process of its own:

    python -m tests.read_programs < [["python", "-m", "examples.tinyworld.data", "out"], …]

Prints for each command line None, or what its parser says against it, as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Read(BaseException):
    """A parser has read its command line, and the program would begin now."""


def complaint(words: Sequence[str]) -> str | None:
    """What a program says against a command line; None where it would begin."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            _start(words)
        except Read:
            return None
        except SystemExit as end:
            return said.getvalue().strip() or f"exit code {end.code}" if end.code else None  # 0: it was asked for help
        except ImportError as error:
            return str(error)
    return "began without reading its command line"


def _start(words: Sequence[str]) -> None:
    if words[0] == "trimtab-serve":
        from trimtab.plugin.serve import main

        main(words[1:])
    elif words[1] == "-m":
        sys.argv = [words[2], *words[3:]]
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    else:
        _start_file(words[1:])


def _start_file(words: Sequence[str]) -> None:
    """As `python FILE` does: what FILE imports is looked for in its own folder, not in the one that python runs in."""
    path = list(sys.path)
    sys.path[:] = [str(Path(words[0]).parent), *(place for place in path if Path(place).resolve() != Path.cwd())]
    for name in [name for name in sys.modules if name.partition(".")[0] == "bench"]:
        del sys.modules[name]
    sys.argv = list(words)
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        sys.path[:] = path


def main() -> None:
    read = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        read(self, args, namespace)
        raise Read

    argparse.ArgumentParser.parse_args = stop  # type: ignore[method-assign]  # every program's last step here
    out, sys.stdout = sys.stdout, sys.stderr
    answers = [complaint(words) for words in json.load(sys.stdin)]
    print(json.dumps(answers), file=out)


if __name__ == "__main__":
    main()
