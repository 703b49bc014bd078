"""`trimtab report`: a run folder on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import say
from .options import a_folder

__all__ = ["report"]


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run folder, or any folder of findings.",
            callback=a_folder("give the --run of other commands, or the --out of shift or evaluate"),
        ),
    ],
    page: Annotated[Path | None, typer.Option(help="The page; by default RUN/report.html.")] = None,
) -> None:
    """Write one self-contained HTML page that shows all that a run folder holds."""
    from ..report import write_report

    page = page or run / "report.html"
    for name, reason in write_report(run, page).items():
        say(f"picture left out: {name} ({reason})")
    typer.echo(str(page))
