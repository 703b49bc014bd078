"""What steering costs in throughput and latency beside plain vLLM: `python bench/serving.py [--quick] [--check]`.

Four engines are alive, one of which works at a time: two plain ones, which show how far two starts of the same differ,
one with three profiles and one with 256. Cases take turns within each round, so that none has a quiet hour to itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it would not find its neighbours

from bench import budget, profiles, show
from bench.cases import CONCURRENCY, FULL, HEADLINE, OTHERS, OVER_COARSE, QUICK, SIDES, TARGETS, Case, Side, Size, cases
from bench.engine import TINYWORLD, Engine, Model, engines
from bench.machine import machine
from bench.pairs import Pair, Run, alternate, estimate, ratios
from examples.tinyworld.precision import served_dtype

__all__ = ["measure", "report"]

STEPS = 4
"""Of an engine in one turn: few, because the machine's speed wanders within milliseconds."""

_TRIAL_TOKENS = 16

POLICY = """
version: 1
subjects: {}
rules: [{subjects: ["*"], allow: {"*": {alpha: [-2, 2]}}}]
"""

Figures = dict[str, float]
METRICS = ("throughput", "ttft", "tpot")


def measure(
    found: Mapping[str, Engine], wanted: list[Case], tokens: int, progress: Progress
) -> dict[Case, list[Pair[Figures]]]:
    """The figures of every case, one pair of each at a time."""

    def run(side: Side, n: int) -> Callable[[], Run[Figures]]:
        return lambda: _run(found[side.engine], side, n, tokens)

    turns = {
        case: alternate(run(case.base, case.concurrency), run(case.other, case.concurrency), 1 + case.pairs)
        for case in wanted
    }
    for case in progress.track(wanted, description="warming up"):
        next(turns[case])
    for engine in found.values():
        engine.call("settle")
    rounds = max(case.pairs for case in wanted)
    bar = progress.add_task("measuring", total=sum(case.pairs for case in wanted))
    done: dict[Case, list[Pair[Figures]]] = {case: [] for case in wanted}
    for number in range(rounds):
        for case in wanted:
            # Those with fewer pairs are spread over the whole time too.
            if number * case.pairs // rounds != (number + 1) * case.pairs // rounds:
                done[case].append(next(turns[case]))
                progress.advance(bar)
    return done


def _run(engine: Engine, side: Side, n: int, tokens: int) -> Run[Figures]:
    engine.call("begin", steerings=side.steerings(n), tokens=tokens)
    while True:
        figures: Figures | None = engine.call("turn", steps=STEPS)
        if figures is not None:
            return figures
        yield


def step_seconds(plain: Engine) -> dict[int, float]:
    """Seconds per step of plain vLLM, by how many requests it serves at once, from one short run each."""
    found = {}
    for n in (CONCURRENCY, *OTHERS):
        for _ in range(2):  # the first one warms up
            plain.call("begin", steerings=[None] * n, tokens=_TRIAL_TOKENS)
            while (figures := plain.call("turn", steps=STEPS)) is None:
                pass
        found[n] = n / figures["throughput"]
    return found


def prefix_hits(found: Mapping[str, Engine]) -> dict[str, float]:
    """Share of prompt tokens from the prefix cache where the same prompts come a second time."""
    nobody, coarse = SIDES["idle"].steerings(CONCURRENCY), SIDES["coarse"].steerings(CONCURRENCY)
    return {
        "plain vLLM": found["plain"].call("hits", before=nobody, after=nobody),
        "steered after steered": found["few"].call("hits", before=coarse, after=coarse),
        "steered after unsteered": found["few"].call("hits", before=nobody, after=coarse),
        "unsteered after steered": found["few"].call("hits", before=coarse, after=nobody),
    }


def report(done: Mapping[Case, list[Pair[Figures]]], hits: Mapping[str, float], size: Size) -> dict[str, Any]:
    """All that was found, as it is written to --json."""
    details: dict[str, Any] = {}
    for case, pairs in done.items():
        if not pairs:  # a quick run on a slow machine leaves it out
            continue
        details.setdefault(str(case.concurrency), {})[case.key] = {
            metric: _ratio(pairs, metric, size.starts) for metric in METRICS
        }
    headline = {key: details[str(n)][key]["throughput"] for key, n in HEADLINE.items()}
    over_coarse = details[str(CONCURRENCY)][OVER_COARSE]["throughput"]
    compared = {**headline, OVER_COARSE: over_coarse}
    targets = {key: {"least": least, "held": compared[key]["interval"][1] >= least} for key, least in TARGETS.items()}
    starts = {
        case.key: [
            _ratio(pairs[at : at + case.pairs], "throughput", 1)["ratio"] for at in range(0, len(pairs), case.pairs)
        ]
        for case, pairs in done.items()
        if pairs and case.concurrency == HEADLINE.get(case.key, CONCURRENCY)
    }
    return {
        "ratio": {key: figures["ratio"] for key, figures in headline.items()},
        "interval": {key: figures["interval"] for key, figures in headline.items()},
        "pairs": {key: figures["pairs"] for key, figures in headline.items()},
        OVER_COARSE: over_coarse,
        "targets": {**targets, "prefix_cache_hits": {"held": len(set(hits.values())) == 1}},
        "machine": machine(),
        "details": {
            "dtype": served_dtype(),
            "tokens": size.tokens,
            "size": budget.said(size) if size != FULL else "full run",
            "starts": starts,
            "concurrency": details,
            "prefix_cache_hits": dict(hits),
        },
    }


def _ratio(pairs: list[Pair[Figures]], metric: str, starts: int) -> dict[str, Any]:
    found = estimate(ratios(pairs, lambda figures: figures[metric]), starts=starts)
    return {
        "ratio": found.median,
        "interval": [found.low, found.high],
        "pairs": found.pairs,
        "base": estimate([pair.base[metric] for pair in pairs]).median,
        "other": estimate([pair.other[metric] for pair in pairs]).median,
    }


def _made(architecture: str, work: Path) -> Model:
    from tests.architectures.table import ROWS, build
    from trimtab.plugin.architectures.brought import BROUGHT

    folder = work / architecture
    if not folder.exists():
        build(architecture, folder)
    return Model(folder, limits=ROWS[architecture].limits, brought=architecture in BROUGHT)


def main() -> int:
    """Measure, print, write; 1 where --check is given and a target is missed."""
    parser = argparse.ArgumentParser(prog="python bench/serving.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 minutes: 30 pairs of shorter answers, or what fits")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything that was measured")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="draw the ratios")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a target is missed")
    parser.add_argument("--work", type=Path, default=Path("out/bench"), help="profiles, logs, vLLM's compile cache")
    parser.add_argument(
        "--architecture",
        metavar="NAME",
        help="of a tiny random model that takes the place of the shipped one; tests/architectures makes it",
    )
    parser.add_argument("--policy", action="store_true", help="under an access policy that allows everything")
    asked = parser.parse_args()
    began = time.monotonic()
    size = QUICK if asked.quick else FULL
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    model = TINYWORLD if asked.architecture is None else _made(asked.architecture, work)
    folders = {
        "plain": None,
        "twin": None,
        "few": profiles.write_few(work / "few", model.folder),
        "many": profiles.write_many(work / "many", model.folder),
    }
    policy = None
    if asked.policy:
        policy = work / "policy.yaml"
        policy.write_text(POLICY)
    console = Console()
    hits: dict[str, float] = {}
    done: dict[Case, list[Pair[Figures]]] = {}
    start = 0
    while start < size.starts:
        console.print(f"starting four engines ({start + 1} of {size.starts})")
        with engines(folders, work=work, core=max(os.sched_getaffinity(0)), model=model, policy=policy) as found:
            if asked.quick and start == 0:
                took = time.monotonic() - began
                size = budget.fitting(budget.SECONDS - took, took, step_seconds(found["plain"]))
                console.print(budget.said(size))
            with Progress(console=console) as progress:
                for case, pairs in measure(found, cases(size), size.tokens, progress).items():
                    done[case] = [*done.get(case, ()), *pairs]
            hits = prefix_hits(found)
        start += 1
    result = report(done, hits, size)
    show.table(result, console)
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1) + "\n")
    if asked.plot:
        show.plot(result, asked.plot)
    return int(asked.check and not all(target["held"] for target in result["targets"].values()))


if __name__ == "__main__":
    sys.exit(main())
