"""Time of the addition by itself beside the time its memory traffic takes at least: `python bench/op.py`.

At the shape of a 7B model (D = 4096, bfloat16), on the GPU where there is one, else on the CPU. The floor is what the
op must read and write once (the stream where it is scored, centroids, one row a token, the delta) at the speed of a
plain copy on the same device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from trimtab.plugin.config import rows_of
from trimtab.plugin.model.tables import SteeringTables
from trimtab.plugin.requests.positions import END
from trimtab.plugin.requests.request import Part, Steering
from trimtab.vectors import ModelIdentity, Profile, SteeringVector

SIZE = 4096
TOKENS = (1, 8, 64, 256, 2048)
CONCEPTS = {"idle": None, "coarse": 0, "fine K=20": 20, "fine K=64": 64, "fine K=256": 256}
_COPIED = 256 << 20


def profile(concepts: int) -> Profile:
    """Random numbers: what an addition costs does not depend on what is added."""
    rng = np.random.default_rng(concepts)
    model = ModelIdentity(architecture="LlamaForCausalLM", hidden_size=SIZE, num_layers=1)
    if concepts == 0:
        return Profile.coarse("coarse", [SteeringVector(0, rng.standard_normal(SIZE))], model=model)
    arrays = rng.standard_normal((2, concepts, SIZE))
    return Profile.fine(f"fine-{concepts}", {0: (arrays[0], arrays[1])}, model=model)


def floor_bytes(tokens: int, concepts: int | None) -> int:
    """What has to cross the memory bus at least once, for bfloat16 states and float32 rows."""
    written = tokens * SIZE * 2
    if concepts is None:
        return written
    scored = tokens * SIZE * 2 * 2 + concepts * SIZE * 4 if concepts else 0
    added = min(tokens, max(concepts, 1)) * SIZE * 4
    return written + scored + added


def measure(device: str, tokens: int, concepts: int | None) -> float:
    """Seconds of one call."""
    found = profile(concepts or 0)
    with torch.device(device):
        tables = SteeringTables({0: 1 + rows_of(found.tensors[0])}, 3, SIZE, tokens=tokens, requests=tokens)
        hidden, residual = torch.randn(2, tokens, SIZE, dtype=torch.bfloat16)
    tables.load(found)
    request = tables.take(Steering((Part(found.digest, 1.0, ((0, END),), None, False),)))
    ones = np.ones(tokens, np.int64)
    tables.step([None if concepts is None else request] * tokens, ones, ones)
    with torch.inference_mode():
        return seconds(lambda: tables.layers[0](hidden, residual), device)


def seconds(call: Callable[[], Any], device: str) -> float:
    """Median time of a call, without the launch where that can be told apart."""
    if device == "cuda":
        from triton.testing import do_bench_cudagraph

        return float(do_bench_cudagraph(call, return_mode="median")) / 1e3
    call()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < 0.5 and len(times) < 200):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def bandwidth(device: str) -> float:
    """Bytes a second of a plain copy, reading and writing counted."""
    source = torch.empty(_COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * _COPIED / seconds(lambda: target.copy_(source), device)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python bench/op.py", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything that was measured")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    speed = bandwidth(device)
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    table = Table(
        "profile", "tokens", "op, µs", "floor, µs", "ratio", title=f"{name}: copies at {speed / 1e9:.0f} GB/s"
    )
    found = []
    for label, concepts in CONCEPTS.items():
        for tokens in TOKENS:
            took, least = measure(device, tokens, concepts), floor_bytes(tokens, concepts) / speed
            found.append({"profile": label, "tokens": tokens, "seconds": took, "floor": least})
            table.add_row(label, str(tokens), f"{took * 1e6:.1f}", f"{least * 1e6:.1f}", f"{took / least:.1f}")
    Console().print(table)
    if asked.json:
        asked.json.write_text(json.dumps({"device": name, "bytes_per_second": speed, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
