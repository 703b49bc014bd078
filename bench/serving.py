"""What steering costs in throughput and latency beside plain vLLM: `python -m bench.serving [--quick] [--check]`.

Three kinds of engine are alive: plain (twice, so that two of them can be held against each other), one with three
profiles and one with 256. One of them works at a time, in alternating pairs; all cases take turns within each round, so
that what disturbs the machine for a while disturbs them all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from bench import profiles, show
from bench.cases import CONCURRENCY, FULL, HEADLINE, OVER_COARSE, PLAIN, QUICK, SIDES, TARGETS, Case, Side, Size, cases
from bench.engine import MODEL, Engine
from bench.machine import machine
from bench.pairs import Pair, alternate, estimate, ratios

Run = dict[str, Any]

METRICS: dict[str, Callable[[Run], float]] = {
    "throughput": lambda run: run["tokens"] / run["seconds"],
    "cpu_throughput": lambda run: run["tokens"] / run["cpu"],
    "ttft": lambda run: run["ttft"],
    "tpot": lambda run: run["tpot"],
}


@contextlib.contextmanager
def engines(work: Path, core: int) -> Iterator[dict[str, Engine]]:
    """The four engines by name, started side by side."""
    folders = {
        "plain": None,
        "twin": None,
        "few": profiles.write_few(work / "few", MODEL),
        "many": profiles.write_many(work / "many", MODEL),
    }
    with contextlib.ExitStack() as stack:
        found = {name: Engine(folder, work=work, name=name, core=core) for name, folder in folders.items()}
        for engine in found.values():
            stack.callback(engine.close)
        for engine in found.values():
            engine.wait()
        yield found


def measure(
    found: dict[str, Engine], wanted: list[Case], tokens: int, progress: Progress
) -> dict[Case, list[Pair[Run]]]:
    """The runs of every case, one pair of each at a time."""

    def runner(side: Side, n: int) -> Callable[[], Run]:
        return lambda: found[side.engine].call("run", steerings=side.steerings(n), tokens=tokens)

    for case in progress.track(wanted, description="warming up"):
        for side in (case.base, case.other):
            runner(side, case.concurrency)()
    for engine in found.values():
        engine.call("settle")
    rounds = max(case.pairs for case in wanted)
    bar = progress.add_task("measuring", total=sum(case.pairs for case in wanted))
    turns = {
        case: alternate(runner(case.base, case.concurrency), runner(case.other, case.concurrency), case.pairs)
        for case in wanted
    }
    done: dict[Case, list[Pair[Run]]] = {case: [] for case in wanted}
    for number in range(rounds):
        for case in wanted:
            # Those with fewer pairs are spread over the whole time too.
            if number * case.pairs // rounds != (number + 1) * case.pairs // rounds:
                done[case].append(next(turns[case]))
                progress.advance(bar)
    return done


def prefix_hits(found: dict[str, Engine]) -> dict[str, float]:
    """Share of prompt tokens from the prefix cache where the same prompts come a second time."""
    nobody, coarse = PLAIN.steerings(CONCURRENCY), SIDES["coarse"].steerings(CONCURRENCY)
    return {
        "plain vLLM": found["plain"].call("hits", before=nobody, after=nobody),
        "steered after steered": found["few"].call("hits", before=coarse, after=coarse),
        "steered after unsteered": found["few"].call("hits", before=nobody, after=coarse),
        "unsteered after steered": found["few"].call("hits", before=coarse, after=nobody),
    }


def summary(done: dict[Case, list[Pair[Run]]]) -> dict[str, Any]:
    """{concurrency: {key: {metric: {ratio, interval, pairs, base, other}}}}"""
    found: dict[str, Any] = {}
    for case, pairs in done.items():
        found.setdefault(str(case.concurrency), {})[case.key] = {
            metric: _figures(pairs, of) for metric, of in METRICS.items()
        }
    return found


def _figures(pairs: list[Pair[Run]], of: Callable[[Run], float]) -> dict[str, Any]:
    found = estimate(ratios(pairs, of))
    return {
        "ratio": found.median,
        "interval": [found.low, found.high],
        "pairs": found.pairs,
        "base": estimate([of(pair.base) for pair in pairs]).median,
        "other": estimate([of(pair.other) for pair in pairs]).median,
    }


def report(done: dict[Case, list[Pair[Run]]], hits: dict[str, float], size: Size) -> dict[str, Any]:
    """All that was found, as it is written to --json."""
    found = summary(done)
    headline = {key: found["32" if key == "mixed32" else str(CONCURRENCY)][key]["throughput"] for key in HEADLINE}
    over_coarse = found[str(CONCURRENCY)][OVER_COARSE]["throughput"]
    held = {**headline, OVER_COARSE: over_coarse}
    return {
        "ratio": {key: figures["ratio"] for key, figures in headline.items()},
        "interval": {key: figures["interval"] for key, figures in headline.items()},
        "pairs": {key: figures["pairs"] for key, figures in headline.items()},
        OVER_COARSE: {name: over_coarse[name] for name in ("ratio", "interval", "pairs")},
        "targets": {key: {"least": least, "held": held[key]["interval"][1] >= least} for key, least in TARGETS.items()},
        "machine": machine(),
        "details": {"tokens": size.tokens, "concurrency": found, "prefix_cache_hits": hits},
    }


def main() -> int:
    """Measure, print, write; 1 where --check is given and a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="30 pairs of short answers, in less than 5 minutes")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything that was measured")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="draw the ratios")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a target is missed")
    parser.add_argument("--work", type=Path, default=Path("out/bench"), help="profiles, logs and vLLM's compile cache")
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL
    core = max(os.sched_getaffinity(0))
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    console = Console()
    with console.status("starting four engines"), contextlib.ExitStack() as stack:
        found = stack.enter_context(engines(work, core))
        kept = stack.pop_all()
    with kept:
        with Progress(console=console) as progress:
            done = measure(found, cases(size), size.tokens, progress)
        result = report(done, prefix_hits(found), size)
    show.table(result, console)
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1) + "\n")
    if asked.plot:
        show.plot(result, asked.plot)
    return int(asked.check and not all(target["held"] for target in result["targets"].values()))


if __name__ == "__main__":
    sys.exit(main())
