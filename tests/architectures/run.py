"""Compare every architecture with transformers and record what came out: `make models`.

Two processes work through the table. What one has found is kept in out/models/, so that an interrupted run goes on
where it was; a change of the code or of a version starts anew. At the end all of it is written to out/models.json, to
the table that the plugin reads, and to docs/models.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.architectures import record
from tests.architectures.comparison import compare
from tests.architectures.table import ROWS, Implementation
from tests.engine.engine import ROOT

KEPT = ROOT / "out" / "models"


@dataclass(frozen=True)
class Job:
    """One comparison. by: what vLLM serves the model with, None for its usual choice."""

    architecture: str
    compiled: bool = False
    by: Implementation | None = None

    @property
    def name(self) -> str:
        return "-".join(
            (self.architecture, *(("compiled",) if self.compiled else ()), *((self.by,) if self.by else ()))
        )


def main() -> int:
    options = _options()
    folder = KEPT / record.state_of_the_code()
    folder.mkdir(parents=True, exist_ok=True)
    jobs = list(_jobs(options))
    waiting = [job for job in jobs if not (folder / f"{job.name}.json").exists()]
    failed = _run(waiting, folder, options.workers)
    if options.only:
        for job in jobs:
            if (folder / f"{job.name}.json").exists():
                print((folder / f"{job.name}.json").read_text())
    elif not failed:
        print(record.write(folder))
    for name, error in failed.items():
        print(f"{name}: {error}", file=sys.stderr)
    return 1 if failed else 0


def _jobs(options: argparse.Namespace) -> Iterator[Job]:
    names = options.only or list(ROWS)
    for name in names:
        yield Job(name)
    for name in names:
        if name in record.ALSO_BY_TRANSFORMERS:
            yield Job(name, by="transformers")
    for name in names:
        if options.compiled == "all" or (options.compiled == "sample" and ROWS[name].sample):
            yield Job(name, compiled=True)


def _run(jobs: list[Job], folder: Path, workers: int) -> dict[str, str]:
    """What went wrong, by the name of the job."""
    failed: dict[str, str] = {}
    context = multiprocessing.get_context("spawn")
    with _progress() as progress, ProcessPoolExecutor(workers, mp_context=context) as pool:
        bar = progress.add_task("architectures", total=len(jobs))
        running = {pool.submit(_one, job, str(folder)): job for job in jobs}
        for done in as_completed(running):
            job = running[done]
            if error := done.exception():
                failed[job.name] = str(error)
            progress.update(bar, advance=1, description=job.name)
    return failed


def _one(job: Job, folder: str) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = compare(ROWS[job.architecture], Path(scratch), compiled=job.compiled, by=job.by)
        except Exception as error:
            (Path(folder) / f"{job.name}.log").write_text(_why(Path(scratch)))
            raise RuntimeError(f"{type(error).__name__}: {error}") from None  # which any process can read
    kept = Path(folder) / f"{job.name}.json"
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(found.to_json(), indent=1))
    part.replace(kept)


def _why(scratch: Path) -> str:
    log = scratch / "engine.log"
    return traceback.format_exc() + (log.read_text(errors="replace") if log.exists() else "")


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--compiled", choices=("all", "sample", "none"), default="sample", help="which are compared compiled as well"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes at a time; each takes up to 4 GiB")
    parser.add_argument(
        "--only", nargs="+", choices=list(ROWS), metavar="ARCHITECTURE", help="compare these, write nothing"
    )
    return parser.parse_args()


def _progress() -> Progress:
    return Progress(TextColumn("{task.description:48}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


if __name__ == "__main__":
    sys.exit(main())
