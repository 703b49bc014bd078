"""What steering costs in a decode step on a GPU, without vLLM: `python bench/gpu_step.py [--shape tiny]`.

A Llama of 7B shape with random weights decodes one token of each sequence, compiled and in CUDA graphs: one graph
without the op, and one each with one and with four armed layers. The cases differ only in what the entries of the
tables hold, which is written in place, as a server does it. Turns alternate, and all work is enqueued before anything
is waited for. Before a case is timed its outputs are checked against the laws of `checked`.

`--shape tiny` is for a machine without a GPU: it shows that this runs, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it would not find its neighbours

from bench.decoder import POSITIONS, Decoder, Seen, Shape
from bench.machine import machine
from bench.pairs import Estimate, alternate, estimate, ratios, whole
from trimtab.plugin.config import rows_of
from trimtab.plugin.model.tables import SteeringTables
from trimtab.plugin.requests.positions import END
from trimtab.plugin.requests.request import Part, Steering
from trimtab.plugin.steps.decisions import SteeredRequest
from trimtab.vectors import ModelIdentity, Profile, SteeringVector
from trimtab.vectors.nearest import nearest

SHAPES = {"7b": Shape(4096, 11008, 32, 32, 32000), "tiny": Shape(64, 128, 8, 4, 512)}
BATCHES = (1, 8, 64, 256)
CASES = ("idle", "coarse", "fine K=20", "fine K=64", "mixed 32")
TARGETS = {"idle": 0.998}
TARGET = 0.99
_LEAST_TURN = 0.015  # seconds
_MIXED = 32

Checks = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """What one sequence of a batch is steered by."""

    profile: Profile
    alpha: float


class Steered:
    """The profiles of every case at some layers, in tables of their own."""

    def __init__(self, shape: Shape, layers: Sequence[int], tokens: int, device: str) -> None:
        self.layers = tuple(layers)
        model = ModelIdentity(
            architecture="LlamaForCausalLM", hidden_size=shape.hidden_size, num_layers=shape.num_hidden_layers
        )
        rng = np.random.default_rng(0)

        def coarse(name: str) -> Profile:
            vectors = [SteeringVector(layer, rng.standard_normal(shape.hidden_size) / 2) for layer in layers]
            return Profile.coarse(name, vectors, model=model)

        def fine(name: str, concepts: int) -> Profile:
            arrays = {layer: rng.standard_normal((2, concepts, shape.hidden_size)) for layer in layers}
            return Profile.fine(name, {layer: (found[0], found[1] / 2) for layer, found in arrays.items()}, model=model)

        self._coarse, self._fine = coarse("coarse"), {20: fine("fine-20", 20), 64: fine("fine-64", 64)}
        self._mixed = [
            Asked(coarse(f"coarse-{n}") if n % 2 else fine(f"fine-20-{n}", 20), 0.5 + n / 64) for n in range(_MIXED)
        ]
        profiles = [self._coarse, *self._fine.values(), *(asked.profile for asked in self._mixed)]
        rows = {layer: 1 + sum(rows_of(found.tensors[layer]) for found in profiles) for layer in layers}
        with torch.device(device):
            self.tables = SteeringTables(rows, 2 + len(profiles), shape.hidden_size, tokens=tokens, requests=tokens)
        for found in profiles:
            self.tables.load(found)

    def batch(self, case: str, size: int) -> list[Asked | None]:
        """What is asked for each sequence. `mixed 32`: three of four are steered, by one of 32 profiles in turn."""
        if case == "idle":
            return [None] * size
        if case == "mixed 32":
            turn = itertools.cycle(self._mixed)
            return [None if number % 4 == 3 else next(turn) for number in range(size)]
        profile = self._coarse if case == "coarse" else self._fine[int(case.partition("=")[2])]
        return [Asked(profile, 1.0)] * size

    def set(self, batch: Sequence[Asked | None]) -> None:
        """Write the entries of a step in place, as a worker does before each one."""
        requests = [None if asked is None else self._request(asked) for asked in batch]
        ones = np.ones(len(batch), np.int64)
        self.tables.step(requests, (POSITIONS - 1) * ones, ones)

    def _request(self, asked: Asked) -> SteeredRequest:
        return self.tables.take(Steering((Part(asked.profile.digest, asked.alpha, ((0, END),), None, False),)))


class Replayed:
    """A step that can be run again: a CUDA graph, or the function where there is no GPU. `logits` and `seen` are those
    of the last run."""

    def __init__(self, step: Callable[[], tuple[torch.Tensor, dict[int, Seen]]], device: str) -> None:
        self._step = step
        self._graph: torch.cuda.CUDAGraph | None = None
        if device == "cuda":
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(2):
                    step()
            torch.cuda.current_stream().wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self.logits, self.seen = step()
        else:
            self.logits, self.seen = step()

    def run(self) -> None:
        if self._graph is None:
            self.logits, self.seen = self._step()
        else:
            self._graph.replay()


def checked(case: str, size: int, steered: Steered, plain: Replayed, armed: Replayed) -> dict[str, Any]:
    """What the case gives beside a plain step at the first armed layer, where both streams are still the same.

    The laws: a plain step gives the same bits twice, without which the next law and the last say nothing; idle gives
    the bits of a plain step, and any other case does not; what the op adds there is, bit for bit, alpha times the row
    of the centroid that is the nearest in float64; and the stream is the plain one and that row, but for the roundings
    of bfloat16 (at most three, each at most 2⁻⁹ of the terms' sizes).
    """
    batch, first = steered.batch(case, size), steered.layers[0]
    steered.set(batch)
    plain.run()
    once = plain.logits.clone()
    plain.run()
    armed.run()
    before, after = plain.seen[first], armed.seen[first]
    delta = steered.tables.layers[first](after.hidden, after.residual)
    wanted = _wanted(batch, first, after).to(delta.device)
    off = (after.stream.float() - before.stream.float() - wanted.float()).abs()
    sizes = after.hidden.float().abs() + after.residual.float().abs() + wanted.float().abs()
    same = torch.equal(plain.logits, armed.logits)
    laws = {
        "outputs finite": bool(armed.logits.isfinite().all()),
        "plain as plain": torch.equal(once, plain.logits),
        "idle as plain, else not": same == (case == "idle"),
        "addition as in float64": torch.equal(delta, wanted),
        "stream is plain + addition": bool((off <= 2**-7 * sizes).all()),
    }
    return {"laws": laws, "most_added": float(wanted.abs().max()), "most_off": float(off.max())}


def _wanted(batch: Sequence[Asked | None], layer: int, seen: Seen) -> torch.Tensor:
    """What steering adds to each token, from the stream that it sees: [B, D], on the CPU."""
    h = (seen.hidden.float() + seen.residual.float()).cpu().numpy()
    wanted = np.zeros_like(h)
    for number, asked in enumerate(batch):
        if asked is not None:
            named = asked.profile.tensors[layer].named
            row = (
                named["vector"]
                if asked.profile.manifest.gate is None
                else named["vectors"][nearest(h[number : number + 1], named["centroids"])[0]]
            )
            wanted[number] = np.float32(asked.alpha) * row
    return torch.from_numpy(wanted).to(seen.hidden.dtype)


def mark(device: str) -> Any:
    """A point in time: of the device's own work where it is a GPU."""
    if device != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def between(start: Any, end: Any) -> float:
    """Seconds. The device must have passed both."""
    return float(end - start if isinstance(start, float) else start.elapsed_time(end) / 1e3)


@dataclass
class Bench:
    """All that is measured, written to `json` after each case."""

    device: str
    pairs: int
    json: Path | None
    deadline: float
    facts: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def write(self) -> None:
        if self.json is not None:
            self.json.write_text(json.dumps({**self.facts, "rows": self.rows}, indent=1) + "\n")

    def sync(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def turn(self, step: Replayed, replays: int) -> tuple[Any, Any]:
        start = mark(self.device)
        for _ in range(replays):
            step.run()
        return start, mark(self.device)

    def compare(self, plain: Replayed, other: Replayed, replays: int) -> tuple[Estimate, list[float], list[float]]:
        """Steps per second, other over plain; and the seconds of each turn's step."""
        # A pair more than asked: the first one finds the device idle.
        pairs = list(
            alternate(
                whole(lambda: self.turn(plain, replays)), whole(lambda: self.turn(other, replays)), 1 + self.pairs
            )
        )[1:]
        self.sync()
        took = [[between(*side) / replays for side in (pair.base, pair.other)] for pair in pairs]
        speeds = ratios(pairs, lambda turn: 1 / between(*turn))
        return estimate(speeds), [base for base, _ in took], [other for _, other in took]

    def measure(self, row: dict[str, Any], plain: Replayed, other: Replayed, check: Checks, step: float) -> None:
        """One case, checked and then timed: a row, or a note that it did not fit. step: seconds of a plain step."""
        replays = max(1, round(_LEAST_TURN / step))
        if 2 * (2 + self.pairs) * replays * step > self.left():
            row["skipped"] = "no time left"
        else:
            row |= check()
            found, base, taken = self.compare(plain, other, replays)
            row |= {**asdict(found), "replays": replays, "plain_seconds": base, "seconds": taken}
        self.rows.append(row)
        self.write()
        print(_shown(row), flush=True)


def run_batch(bench: Bench, model: Decoder, batch: int, sets: Sequence[Steered]) -> float:
    """All cases of a batch size. Returns the seconds that compiling and capturing took."""
    begun = time.monotonic()
    tokens, caches = model.tokens(batch), model.caches(batch)
    plain = Replayed(lambda: model.step(tokens, caches, {}), bench.device)
    graphs = [
        Replayed(lambda tables=one.tables.layers: model.step(tokens, caches, tables), bench.device)  # type: ignore[misc]
        for one in sets
    ]
    bench.turn(plain, 2)
    trial = bench.turn(plain, 5)
    bench.sync()
    step = between(*trial) / 5
    built = time.monotonic() - begun
    print(f"batch {batch}: ready in {built:.1f} s, a plain step takes {step * 1e3:.3f} ms", flush=True)
    bench.measure({"batch": batch, "case": "plain", "armed": 0}, plain, plain, dict, step)
    for (one, armed), case in itertools.product(zip(sets, graphs, strict=True), CASES):
        row = {"batch": batch, "case": case, "armed": len(one.layers)}
        bench.measure(row, plain, armed, functools.partial(checked, case, batch, one, plain, armed), step)
    return built


def _shown(row: dict[str, Any]) -> str:
    named = f"  {row['case']:10} {row['armed']} armed: "
    if "skipped" in row:
        return named + "skipped, no time left"
    more = (statistics.median(row["seconds"]) - statistics.median(row["plain_seconds"])) * 1e6
    target = TARGETS.get(row["case"], TARGET)
    verdict = "" if row["armed"] == 0 else f", target {target} {'held' if row['high'] >= target else 'MISSED'}"
    broken = [law for law, held in row.get("laws", {}).items() if not held]
    wrong = f"; BROKEN: {', '.join(broken)}" if broken else ""
    return f"{named}{row['median']:.4f} ({row['low']:.4f} to {row['high']:.4f}), {more:+.1f} µs{verdict}{wrong}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python bench/gpu_step.py", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--pairs", type=int, help="30, or 2 of the tiny shape")
    parser.add_argument("--budget", type=float, default=200, metavar="SECONDS", help="skip what does not fit")
    parser.add_argument("--backend", help="of torch.compile; inductor on a GPU, else eager")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything that was measured, case by case")
    asked = parser.parse_args()
    deadline = time.monotonic() + asked.budget
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if asked.shape != "tiny" and device == "cpu":
        sys.exit("no GPU here: --shape tiny shows that this runs, and its figures mean nothing")
    shape = SHAPES[asked.shape]
    torch.manual_seed(0)
    if device == "cpu":
        torch.set_num_threads(1)  # threads of a step this small would wait for each other
    count = shape.num_hidden_layers
    layers = [(count // 2,), (count // 4, count // 2, count * 5 // 8, count * 3 // 4)]  # of 32: 8, 16, 20, 24
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    facts = {"shape": asdict(shape), "positions": POSITIONS, "machine": {**machine(), "gpu": gpu}}
    bench = Bench(device, asked.pairs or (2 if asked.shape == "tiny" else 30), asked.json, deadline, facts)
    building = 0.0
    with torch.inference_mode():
        watched = frozenset(group[0] for group in layers)
        model = Decoder(shape, device, watched, asked.backend or ("inductor" if device == "cuda" else "eager"))
        sets = [Steered(shape, group, max(asked.batches), device) for group in layers]
        for one in sets:
            facts[f"bytes of {len(one.layers)} tables"] = one.tables.nbytes
            shapes = {tuple(table.rows.shape) for table in one.tables.layers.values()}
            print(f"layers {one.layers}: rows {shapes}, {one.tables.nbytes} bytes", flush=True)
        for batch in asked.batches:
            if bench.left() < building:
                print(f"batch {batch}: skipped, no time left", flush=True)
                continue
            building = run_batch(bench, model, batch, sets)
    held = all(all(row["laws"].values()) for row in bench.rows if "laws" in row)
    print(f"{gpu or 'CPU'}: steps per second over plain (95 %), and by how much longer a step takes (median)")
    for size, found in itertools.groupby(bench.rows, lambda row: row["batch"]):
        print("\n".join([f"batch {size}", *map(_shown, found)]))
    print("all laws held" if held else "LAWS BROKEN, see above")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
