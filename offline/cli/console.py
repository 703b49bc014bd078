"""How the command speaks: results on stdout, all else on stderr, an error as one sentence and exit code 1."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.table import Table

from trimtab.vectors.errors import TrimtabError, printable

__all__ = ["OneSentence", "Plain", "display", "figure", "keeping", "quiet", "say"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OneSentence(typer.core.TyperGroup):
    """Turns every error that was raised on purpose, and every refusal of the disk, into one line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of a pipe has seen enough (`… | head`): click ends without a word
        except (TrimtabError, OSError) as error:
            say(_full(error) if isinstance(error, OSError) and error.errno in _FULL else str(error))
            raise typer.Exit(1) from error


def _full(error: OSError) -> str:
    return (
        f"{error.filename or 'the disk'}: cannot be written ({error.strerror}); free some space there, or write to "
        "another disk. What was finished is kept, and --resume goes on where a command has it"
    )


def say(message: str) -> None:
    """Print one line to stderr."""
    typer.echo("trimtab: " + printable(re.sub(r"\s*\n\s*", " ", message.strip())), err=True)


def display(*parts: RenderableType, width: int | None = None) -> None:
    """Print tables and text to stdout. What artefacts say is shown as it is: it is no markup and no emoji code.

    width: columns where stdout is no terminal.
    """
    console = Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else width)
    for part in parts:
        console.print(part)


class Plain(Table):
    """A table whose cells are text from anywhere: what a terminal would obey is written as an escape."""

    def __init__(self, *headers: Any, title: str | None = None, **settings: Any) -> None:
        super().__init__(*headers, title=None if title is None else printable(title), **settings)

    def add_row(self, *cells: RenderableType | None, **settings: Any) -> None:
        super().add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in cells), **settings)


def figure(value: float) -> str:
    """A number for a table: whole numbers whole, others with four digits, never with an exponent above 1."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"


@contextmanager
def keeping(kept: Callable[[], str]) -> Iterator[None]:
    """Within the context, Ctrl-C says what is kept before it ends the command."""
    try:
        yield
    except KeyboardInterrupt:
        say(kept())
        raise


def quiet() -> None:
    """Keep transformers' progress bars and advice out of ours."""
    import torch  # noqa: F401  # before transformers, which looks for packages that torch's start puts right
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
