"""Memory and speed of a dictionary from more states than memory holds: `python bench/dictionary.py`.

A million states of size 4096 are 16 GB. They are made up as they are read, shard by shard, the same ones in every pass:
20 planted concepts with noise around them. What is measured is `mini_batch_kmeans`; making the states is timed
apart, and stands for reading them from a disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it would not find its neighbours

from bench.machine import machine
from trimtab.offline.concepts.mini_batch import mini_batch_kmeans
from trimtab.offline.states import LayerStates
from trimtab.vectors import ModelIdentity
from trimtab.vectors.states import StatesManifest, StatesRequest

PLANTED = 20
LIMIT = 2 << 30
"""Bytes that the whole process may take."""


class MadeStates:
    """So many states around planted concepts, in shards, as often as one likes; `seconds` is what making them took."""

    def __init__(self, rows: int, size: int, shard: int, seed: int = 0) -> None:
        self.rows, self.size, self.shard, self.seed = rows, size, shard, seed
        self.seconds = 0.0
        self.centres = np.random.default_rng(seed).standard_normal((PLANTED, size), np.float32)
        request = StatesRequest(
            model=ModelIdentity(architecture="Made", hidden_size=size, num_layers=1),
            data="sha256:0",
            samples=rows,
            rule="last-prompt",
            layers=(0,),
            dtype="float32",
            batch_size=shard,
            shard_size=shard,
            max_new_tokens=1,
        )
        self.manifest = StatesManifest(request=request, versions={"numpy": np.__version__})

    def __iter__(self) -> Iterator[LayerStates]:
        for start in range(0, self.rows, self.shard):
            began = time.perf_counter()
            made = self._make(start, min(self.shard, self.rows - start))
            self.seconds += time.perf_counter() - began
            yield made

    def _make(self, start: int, count: int) -> LayerStates:
        rng = np.random.Generator(np.random.SFC64([self.seed, start]))
        planted = rng.integers(PLANTED, size=count)
        values = rng.random((count, self.size), np.float32)
        values -= np.float32(0.5)
        values *= np.float32(2)
        for concept, centre in enumerate(self.centres):
            values[planted == concept] += centre
        return LayerStates(
            layer=0,
            values=values,
            labels=tuple(map(str, planted.tolist())),
            tokens=planted,
            sample_ids=tuple(map(str, range(start, start + count))),
            positions=np.zeros(count, np.int64),
            weights=np.ones(count),
            manifest=self.manifest,
        )


def measure(rows: MadeStates, k: int) -> dict[str, float]:
    """Seconds, states per second without the time that making them took, peak memory in bytes, and what was found."""
    began = time.perf_counter()
    found = mini_batch_kmeans(rows, k, progress=True)
    took = time.perf_counter() - began
    return {
        "rows": rows.rows,
        "size": rows.size,
        "k": k,
        "bytes_of_rows": rows.rows * rows.size * 4,
        "seconds": took,
        "seconds_making_rows": rows.seconds,
        "rows_per_second": rows.rows / (took - rows.seconds),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "planted_found": len(set(found.labels)),
        "least_purity": float(found.purity.min()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python bench/dictionary.py", description=__doc__)
    parser.add_argument("--states", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--shard", type=int, default=10_000, help="states of a shard")
    parser.add_argument("--k", type=int, default=PLANTED)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything that was measured")
    asked = parser.parse_args()
    found = measure(MadeStates(asked.states, asked.size, asked.shard), asked.k)
    table = Table("what", "measured", title="mini-batch K-Means from shards")
    for name, value in found.items():
        table.add_row(name.replace("_", " "), f"{value:,.3f}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)
    if asked.json:
        asked.json.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")
    if found["peak_bytes"] > LIMIT:
        raise SystemExit(f"{found['peak_bytes']:,} bytes were taken; the limit is {LIMIT:,}")


if __name__ == "__main__":
    main()
