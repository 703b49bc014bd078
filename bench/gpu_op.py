"""The CUDA form of the op by itself: is it right on this device, and how long does it take: `python bench/gpu_op.py`.

Right: every case of `gpu_cases` against float64, called and replayed from a CUDA graph with another batch's contents.
Time: a call in a CUDA graph, beside the time of its memory traffic and a compiled `residual + v[index]`. With `warm`
tables the same profile is read again and again, and stays in the cache; with `cold` ones each call reads another
profile and another stream, more than the cache holds, as between the layers of a model.

vLLM need not be there. Without a GPU, `TRITON_INTERPRET=1 python bench/gpu_op.py` checks small cases and times nothing.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it would not find its neighbours

from bench.gpu_cases import Case, Kind, cases, expected, make, refill
from trimtab.plugin.model import op_triton

SIZE = 4096
TOKENS = (1, 8, 64, 256, 2048)
PROFILES: dict[str, tuple[int | None, int]] = {
    "idle": (None, 0),
    "coarse": (0, 0),
    "fine K=20": (20, 0),
    "fine K=64": (64, 0),
    "fine K=64, limits": (64, 1),
    "fine K=256": (256, 0),
}
_COLD = 96 << 20  # bytes; more than the cache of any of these devices
Calls = list[Callable[[], Any]]


def check(device: str, small: bool, jobs: int) -> list[str]:
    """What was wrong, by case; [] where nothing was. jobs: processes, since most of the time goes into compiling."""
    checked = [(number, _known(kind, device), device) for number, kind in enumerate(cases(small))]
    if jobs == 1:
        return [line for one in checked for line in _checked(one)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        return [line for lines in pool.imap_unordered(_checked, checked) for line in lines]


def _known(kind: Kind, device: str) -> Kind:
    """Triton's interpreter cuts bfloat16 off, where devices round."""
    return replace(kind, dtype=torch.float16) if device == "cpu" and kind.dtype == torch.bfloat16 else kind


def _checked(one: tuple[int, Kind, str]) -> list[str]:
    number, kind, device = one
    case = make(kind, device, number)
    problems = _differences(case, op_triton.launch)
    if device == "cuda" and kind.tokens <= 512:
        problems += [f"{problem}, replayed" for problem in _replayed(case, kind)]
    torch.cuda.empty_cache()
    return [f"{kind}: {problem}" for problem in problems]


def _differences(case: Case, call: Callable[..., torch.Tensor]) -> list[str]:
    mine = case.cloned()
    found = call(*mine.arguments())
    return _compare(case, (found, mine.decided, mine.lost, mine.counts))


def _compare(before: Case, found: tuple[torch.Tensor, ...]) -> list[str]:
    *wanted, near = expected(before)
    problems = []
    rows = (~near).nonzero().flatten()
    if not torch.equal(found[0][rows], wanted[0][rows]):
        differ = (found[0][rows] != wanted[0][rows]).any(dim=1)
        problems.append(f"delta of {int(differ.sum())} of {len(rows)} tokens")
    if not near.any() and not torch.equal(found[1], wanted[1]):
        problems.append(f"{int((found[1] != wanted[1]).sum())} decisions")
    if not torch.equal(found[2], wanted[2]):
        problems.append("marks of what is lost")
    if not near.any() and not torch.equal(found[3], wanted[3]):
        problems.append("counts of what was chosen")
    return problems


def _replayed(case: Case, kind: Kind) -> list[str]:
    """A graph captured for this batch, replayed with another one's stream, entries and decisions."""
    mine = case.cloned()
    op_triton.launch(*mine.arguments())
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = op_triton.launch(*mine.arguments())
    problems = []
    for seed in (1000, 1001):
        other = make(kind, "cuda", seed)
        mine.hidden.copy_(other.hidden)
        if mine.residual is not None and other.residual is not None:
            mine.residual.copy_(other.residual)
        refill(mine, kind, seed)
        before = mine.cloned()
        found.fill_(torch.nan)  # so that what is not written shows
        graph.replay()
        torch.cuda.synchronize()
        problems += _compare(before, (found, mine.decided, mine.lost, mine.counts))
    return problems


def calls(tokens: int, concepts: int | None, metric: int, cold: bool) -> tuple[Calls, Calls]:
    """Calls of the op, and of a compiled gather of one row per token; each of other data where `cold`."""
    stream = tokens * SIZE * 2 * 3
    table = 2 * max(concepts or 0, 1) * SIZE * 4
    many = min(512, 2 + _COLD // (stream + table)) if cold else 1
    kind = Kind(tokens, SIZE, (concepts or 0,) * many, metric=metric, unsteered=1.0)
    case = make(kind, "cuda")
    if metric:
        case.limits.fill_(torch.inf)
    ours: Calls = []
    plain: Calls = []
    for number in range(many):
        hidden, residual = torch.randn(2, tokens, SIZE, device="cuda").bfloat16()
        entries = torch.zeros_like(case.entries)
        if concepts is not None:
            entries[:, 0, 0] = 1 + number
            entries[:, 1, 0] = torch.ones((), device="cuda").view(torch.int32)
        arguments = (hidden, residual, case.summed, entries, *case.arguments()[4:])
        ours.append(functools.partial(op_triton.launch, *arguments))
        index = torch.full((tokens,), int(case.slots[1 + number, 0]), device="cuda")
        plain.append(functools.partial(gathered, residual, case.rows, index))
    return ours, plain


@torch.compile
def gathered(residual: torch.Tensor, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return residual + rows[index].to(residual.dtype)


def seconds(made: Calls, least: int = 100) -> float:
    """Median time of one call: the calls in turn, captured into one CUDA graph, nothing else between them."""
    turns = -(-least // len(made))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in made[:2]:
            call()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for call in made * turns:
                call()
        graph.replay()
        stream.synchronize()
        found = []
        for _ in range(7):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            stream.synchronize()
            found.append(begin.elapsed_time(end) / 1e3 / len(made) / turns)
    return float(statistics.median(found))


def floor_bytes(tokens: int, concepts: int | None) -> int:
    """What has to cross the memory bus at least once, for bfloat16 states and float32 rows."""
    written = tokens * SIZE * 2
    if concepts is None:
        return written
    scored = tokens * SIZE * 2 * 2 + concepts * SIZE * 4 if concepts else 0
    return written + scored + min(tokens, max(concepts, 1)) * SIZE * 4


def bandwidth() -> float:
    """Bytes per second of a large copy, reading and writing counted."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return float(2 * source.nbytes / seconds([functools.partial(target.copy_, source)], least=5))


def timed(speed: float) -> Iterator[dict[str, Any]]:
    for (label, (concepts, metric)), tokens in itertools.product(PROFILES.items(), TOKENS):
        row: dict[str, Any] = {
            "profile": label,
            "tokens": tokens,
            "floor_us": floor_bytes(tokens, concepts) / speed * 1e6,
        }
        for name, cold in (("warm", False), ("cold", True)):
            ours, plain = calls(tokens, concepts, metric, cold)
            row[f"{name}_us"] = seconds(ours) * 1e6
            if concepts == 0:
                row[f"gather_{name}_us"] = seconds(plain) * 1e6
            del ours, plain
        torch.cuda.empty_cache()
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(prog="python bench/gpu_op.py", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything that was measured")
    parser.add_argument("--check", choices=["all", "small", "none"], default="all", help="which cases are checked")
    parser.add_argument("--jobs", type=int, default=1, help="processes that check (each compiles for itself)")
    parser.add_argument("--no-times", action="store_true")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        sys.exit("no GPU here: set TRITON_INTERPRET=1 to check small cases in Triton's interpreter, without times")
    name = torch.cuda.get_device_name() if device == "cuda" else "Triton's interpreter"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}

    def keep() -> None:
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1) + "\n")

    if asked.check != "none":
        began = time.perf_counter()
        found["wrong"] = check(device, small=asked.check == "small" or device == "cpu", jobs=asked.jobs)
        print("\n".join(found["wrong"]) or "every case is right", f"({time.perf_counter() - began:.0f} s)", flush=True)
        keep()
    if device == "cuda" and not asked.no_times:
        found["bytes_per_second"] = speed = bandwidth()
        print(f"{name}: copies at {speed / 1e9:.0f} GB/s", flush=True)
        found["rows"] = []
        for row in timed(speed):
            found["rows"].append(row)
            numbers = "  ".join(f"{key} {value:.2f}" for key, value in row.items() if key.endswith("_us"))
            print(f"{row['profile']:18} T {row['tokens']:5}  {numbers}", flush=True)
            keep()
    if found.get("wrong"):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
