"""The command that shows what a study found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import say

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of findings.")],
    out: Annotated[Path | None, typer.Option(help="The page; by default RUN/report.html.")] = None,
) -> None:
    """Write one self-contained HTML page that shows every finding of a run."""
    from ..report import write_report

    out = out or run / "report.html"
    for name, reason in write_report(run, out).items():
        say(f"picture left out: {name} ({reason})")
    typer.echo(str(out))
