"""How the command speaks: results on stdout, all else on stderr, an error as one sentence and exit code 1."""

from __future__ import annotations

import re
from typing import Any

import typer

from trimtab.vectors.errors import TrimtabError

__all__ = ["OneSentence", "figure", "quiet", "say"]


class OneSentence(typer.core.TyperGroup):
    """Turns every error that was raised on purpose, and every refusal of the disk, into one line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of a pipe has seen enough (`… | head`): click ends without a word
        except (TrimtabError, OSError) as error:
            say(str(error))
            raise typer.Exit(1) from error


def say(message: str) -> None:
    """Print one line to stderr."""
    typer.echo("trimtab: " + re.sub(r"\s*\n\s*", " ", message.strip()), err=True)


def figure(value: float) -> str:
    """A number for a table: whole numbers whole, others with four digits, never with an exponent above 1."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"


def quiet() -> None:
    """Keep transformers' progress bars and advice out of ours."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
