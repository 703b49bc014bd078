"""`python -m examples.tinyworld.study --out out/study`: the two studies that are no tuning of one steering."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

from examples.tinyworld.export import MODEL
from examples.tinyworld.study import stability, toward
from examples.tinyworld.study.lab import Lab
from examples.tinyworld.study.prepare import kept_memory
from trimtab.offline.cli.console import Plain, display, figure
from trimtab.offline.errors import OfflineError
from trimtab.offline.findings import Finding, TableFound, write_finding

PARTS = {"stability": stability, "toward": toward}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.tinyworld.study", description="Studies steering.")
    parser.add_argument("--out", type=Path, default=Path("out/study"), help="folder for all that is made")
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the tiny LLaVA")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this part; repeatable")
    asked = parser.parse_args()
    kept_memory("examples.tinyworld.study")
    try:
        _measure(Lab(asked.out, asked.model), asked.part or list(PARTS))
    except OfflineError as error:
        raise SystemExit(str(error)) from error


def _measure(lab: Lab, parts: Sequence[str]) -> None:
    """Serves the profiles of all parts at once, and measures one part after the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what K-Means misses is what the tables are about
        made = [profile for part in parts for profile in PARTS[part].profiles(lab)]
    with lab.served(made) as asking:
        for part in parts:
            for name, finding in PARTS[part].study(lab, asking).items():
                print(write_finding(lab.run, name, finding), flush=True)
                _show(finding)


def _show(finding: Finding) -> None:
    if not isinstance(finding, TableFound):
        return
    table = Plain(*finding.columns, title=finding.title, caption=finding.note)
    for row in finding.rows:
        table.add_row(*(figure(cell) if isinstance(cell, float) else str(cell or "") for cell in row))
    display(table, width=160)


if __name__ == "__main__":
    main()
