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
    return "began without reading its command line"


def _start(words: Sequence[str]) -> None:
    if words[0] == "trimtab-serve":
        from trimtab.plugin.serve import main

        main(words[1:])
    elif words[1] == "-m":
        sys.argv = [words[2], *words[3:]]
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words[1:])
        runpy.run_path(words[1], run_name="__main__")


def main() -> None:
    read = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        read(self, args, namespace)
        raise Read

    argparse.ArgumentParser.parse_args = stop  # type: ignore[assignment, method-assign]  # every program's last step here
    out, sys.stdout = sys.stdout, sys.stderr
    answers = [complaint(words) for words in json.load(sys.stdin)]
    print(json.dumps(answers), file=out)


if __name__ == "__main__":
    main()
