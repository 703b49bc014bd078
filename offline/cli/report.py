"""The command that shows what a study found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import say
from .options import a_folder

__all__ = ["report"]


def report(
    findings: Annotated[
        Path,
        typer.Argument(
            metavar="FINDINGS",
            help="Folder of findings.",
            callback=a_folder("give the --findings of ground or choose-k, or the --out of shift or evaluate"),
        ),
    ],
    page: Annotated[Path | None, typer.Option(help="The page; by default FINDINGS/report.html.")] = None,
) -> None:
    """Write one self-contained HTML page that shows every finding of a folder."""
    from ..report import write_report

    page = page or findings / "report.html"
    for name, reason in write_report(findings, page).items():
        say(f"picture left out: {name} ({reason})")
    typer.echo(str(page))
