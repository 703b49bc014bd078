"""What steering adds to an engine's start: `python bench/startup.py [--pairs N] [--json PATH] [--check]`.

A plain vLLM engine and one with three profiles start in turn, each in a new process, from the process's begin until it
can be asked. Both compile, and both have started once before, so that they find their graphs in vLLM's cache, as a
server does that is started again. The one with profiles arms a layer, and proves before it serves that the layer adds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it would not find its neighbours

from bench.engine import MODEL, Engine
from bench.machine import machine
from bench.profiles import write_few

RATIO, SECONDS = 1.05, 3.0
"""What a start with profiles may take: this many times as long as a plain one, or this much longer."""


def seconds(name: str, profiles: Path | None, work: Path, core: int) -> float:
    """Of one start."""
    begin = time.perf_counter()
    engine = Engine(name, profiles, work=work, core=core)
    try:
        engine.wait()
        return time.perf_counter() - begin
    finally:
        engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python bench/startup.py", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="starts of each kind that are measured (default: 5)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything that was measured")
    parser.add_argument("--check", action="store_true", help="fail where a start takes too long")
    asked = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    found: dict[str, list[float]] = {"plain": [], "steered": []}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folders = {"plain": None, "steered": write_few(work / "profiles", MODEL)}
        for number in track(range(1 + asked.pairs), "starts", console=Console(stderr=True)):
            for kind in sorted(folders, reverse=number % 2 == 1):
                took = seconds(kind, folders[kind], work, core)
                if number:  # the first of each fills the cache
                    found[kind].append(took)
    plain, steered = (statistics.median(found[kind]) for kind in ("plain", "steered"))
    most = max(RATIO * plain, plain + SECONDS)
    print(f"plain {plain:.1f} s, steered {steered:.1f} s ({steered / plain:.3f} times, {steered - plain:+.1f} s)")
    print(f"at most {most:.1f} s: {'yes' if steered <= most else 'no'}")
    if asked.json:
        asked.json.write_text(json.dumps({"machine": machine(), "seconds": found}, indent=1) + "\n")
    if asked.check and steered > most:
        sys.exit(1)


if __name__ == "__main__":
    main()
