"""The whole campaign on one machine: `make conformance`. Writes its record and fails when something does not hold.

Any batch can be run again by itself, with the same seed: `python -m tests.conformance.run --only 123 --out -`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.conformance.batches import batch
from tests.conformance.campaign import Campaign, Tally, start
from tests.conformance.formula import Formula
from tests.conformance.profiles import make_profiles
from tests.conformance.record import FAULTS, Record
from tests.engine.engine import ROOT, Engine

MODEL = ROOT / "examples/tinyworld/model"


def main() -> int:
    options = _options()
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, _progress() as progress:
        record = _run(Path(folder), options, progress, began)
    page = record.page()
    if options.out == "-":
        print(page)
    else:
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        Path(options.out).write_text(page)
    for failure in record.failures:
        print(failure, file=sys.stderr)
    return 1 if record.failures else 0


def _run(folder: Path, options: argparse.Namespace, progress: Progress, began: float) -> Record:
    def ticker(what: str, total: int) -> Callable[[], None]:
        task = progress.add_task(what, total=total)
        return lambda: progress.advance(task)

    def serve(engine: Engine, what: str, numbers: range, fault: str | None = None) -> Tally:
        batches = (batch(number, options.pool, seed) for number in numbers)
        return campaign.serve(engine, batches, ticker(what, len(numbers)), fault)

    seed, every = options.seed, range(options.batches)
    few = every[: options.few]
    formula = Formula(MODEL)
    registry = make_profiles(formula, folder / "profiles", seed)
    campaign = Campaign(formula, registry, options.pool, seed)
    mutated = []
    with start(folder / "engine.log", MODEL, folder / "profiles") as engine:
        campaign.ask_alone(engine, ticker("alone", options.pool))
        unlike = campaign.unlike_unsteered(engine, ticker("alone and unsteered", options.pool))
        differences = campaign.check_formula(ticker("formula", options.pool))
        numbers = every if options.only is None else range(options.only, options.only + 1)
        series = [("as they come", serve(engine, "batches", numbers))]
        for kind in FAULTS if options.only is None else ():
            mutated.append((kind, serve(engine, kind, few, kind)))
        scheduling = engine.call("conformance", what="facts")
    if options.only is None:
        other = {"async_scheduling": not scheduling["async"], "scheduling_policy": "priority"}
        with start(folder / "other.log", MODEL, folder / "profiles", **other) as engine:
            series.append(("by priority", serve(engine, "batches by priority", few)))
    return Record(seed, campaign.alone, unlike, differences, series, mutated, time.monotonic() - began, scheduling)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--pool", type=int, default=400, help="distinct requests")
    parser.add_argument("--few", type=int, default=40, help="batches of the further series")
    parser.add_argument("--only", type=int, help="run this one batch again")
    parser.add_argument("--out", default=str(ROOT / "docs" / "conformance.md"), help="file of the record, - for none")
    return parser.parse_args()


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


if __name__ == "__main__":
    sys.exit(main())
