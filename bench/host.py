"""What steering costs the host in each step, without a model: `python bench/host.py [--json PATH] [--check]`.

Once a step, whatever the number of armed layers, the entries are filled from the final batch. Three kinds of step:

steady   every request decodes one more token; the batch is that of the step before
change   every request decodes one token, but one of them has just come and one has gone
mixed    one request in eight has just come and prefills its prompt, the others decode
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it would not find its neighbours

from bench.machine import machine
from trimtab.plugin.model.tables import SteeringTables
from trimtab.plugin.requests.positions import END
from trimtab.plugin.requests.request import Part, Steering
from trimtab.plugin.steps.decisions import SteeredRequest

__all__ = ["KINDS", "filler", "measure", "steps"]

BATCHES = (8, 16, 32, 64, 128, 256, 512)
LAYERS = (1, 32)
KINDS = ("steady", "change", "mixed")
TARGET_US, TARGET_BATCH = 100.0, 256
PROFILES = 32
PROMPT = 80
STEPS = 300

Ints = npt.NDArray[np.int32]
Step = tuple[list[Steering], Ints, Ints]
"""Steering of each request in batch order, its tokens before this step, and its tokens in this step."""


def filler(layers: int, requests: int) -> Callable[[Step], Callable[[], None]]:
    """From a step to what it calls, for a model with so many armed layers. All that is known here of the tables.

    Beforehand a worker takes each request that has come, once in its life, and has those of the batch at hand.
    """
    rows = dict.fromkeys(range(layers), 2)
    tables = SteeringTables(rows, 2 + PROFILES, 8, tokens=requests * PROMPT, requests=requests)
    tables.slots.update({_digest(number): 1 + number for number in range(PROFILES)})
    held: dict[int, tuple[Steering, SteeredRequest]] = {}
    batches: list[tuple[SteeredRequest, ...]] = [()]

    def prepare(step: Step) -> Callable[[], None]:
        steerings, computed, scheduled = step
        for steering in steerings:
            if id(steering) not in held:
                held[id(steering)] = (steering, tables.take(steering))
        batch = tuple(held[id(steering)][1] for steering in steerings)
        if batch != batches[0]:  # as both runners do: the same object for the same requests
            batches[0] = batch
        batch = batches[0]
        return lambda: tables.step(batch, computed, scheduled)

    return prepare


def steps(kind: str, requests: int) -> Iterator[Step]:
    """One step after the other, without end."""
    running: list[Steering] = [_steering(number) for number in range(requests)]
    computed = np.full(requests, PROMPT, np.int32)
    fresh, came = requests, 0
    while True:
        scheduled = np.ones(requests, np.int32)
        if kind != "steady":
            for _ in range(1 if kind == "change" else requests // 8):
                place = came % requests
                running[place], computed[place] = _steering(fresh), PROMPT - 1 if kind == "change" else 0
                scheduled[place] = 1 if kind == "change" else PROMPT
                fresh, came = fresh + 1, came + 1
        yield list(running), computed.copy(), scheduled
        computed += scheduled


def measure(layers: int, requests: int, kind: str) -> float:
    """Microseconds of a step, median."""
    prepare, coming = filler(layers, requests), steps(kind, requests)
    prepare(next(coming))()
    seconds = []
    for step, _ in zip(coming, range(STEPS), strict=False):
        fill = prepare(step)
        started = time.perf_counter()
        fill()
        seconds.append(time.perf_counter() - started)
    return 1e6 * statistics.median(seconds)


def _growth(batches: Sequence[int], times: Sequence[float]) -> float:
    """The power of the batch with which the time grows, over the larger half of the batches."""
    half = len(batches) // 2
    return math.log(times[-1] / times[half]) / math.log(batches[-1] / batches[half])


def _steering(number: int) -> Steering:
    profile = number % PROFILES
    return Steering((Part(_digest(profile), 0.5 + number % 7 / 8, ((PROMPT - 1, END),), None, False),))


def _digest(profile: int) -> str:
    return f"{profile:064x}"


def main() -> int:
    """Measure, print, write; 1 where --check is given and a target is missed."""
    parser = argparse.ArgumentParser(prog="python bench/host.py", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything that was measured")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a target is missed")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [(layers, batch, kind) for batch in BATCHES for kind in KINDS for layers in LAYERS]
    found = {each: measure(*each) for each in track(wanted, description="measuring")}
    result = _report(found)
    console = Console()
    console.print(_table(found, result))
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(asked.check and not all(result["held"].values()))


def _report(found: dict[tuple[int, int, str], float]) -> dict[str, Any]:
    curves = {kind: [found[1, batch, kind] for batch in BATCHES] for kind in KINDS}
    return {
        "microseconds": {
            kind: {str(layers): {str(batch): found[layers, batch, kind] for batch in BATCHES} for layers in LAYERS}
            for kind in KINDS
        },
        "growth": {kind: _growth(BATCHES, curve) for kind, curve in curves.items()},
        "held": {kind: found[LAYERS[-1], TARGET_BATCH, kind] <= TARGET_US for kind in KINDS},
        "target": {"microseconds": TARGET_US, "requests": TARGET_BATCH},
        "machine": machine(),
    }


def _table(found: dict[tuple[int, int, str], float], result: dict[str, Any]) -> Table:
    table = Table(title=f"Filling the entries of a step, µs (target: {TARGET_US:g} at {TARGET_BATCH} requests)")
    table.add_column("requests", justify="right")
    for kind in KINDS:
        for layers in LAYERS:
            table.add_column(f"{kind}, {layers} layer{'s' if layers > 1 else ''}", justify="right")
    for batch in BATCHES:
        table.add_row(str(batch), *(f"{found[layers, batch, kind]:.1f}" for kind in KINDS for layers in LAYERS))
    verdicts = ("held" if result["held"][kind] else "missed" for kind in KINDS)
    table.caption = "; ".join(
        f"{kind}: {verdict}, grows as batch^{result['growth'][kind]:.2f}"
        for kind, verdict in zip(KINDS, verdicts, strict=True)
    )
    return table


if __name__ == "__main__":
    sys.exit(main())
