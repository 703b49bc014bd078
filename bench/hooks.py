"""Our engine beside the published way, forward hooks at batch 1: `python bench/hooks.py [--quick] [--json PATH]`.

The same questions about the same pictures, in float32 and with equal threads on both sides: transformers answers them
one after the other with a hook on a block, the compiled engine all at once. Nothing is left of an earlier run; within a
run the engine keeps what its own caches keep, so that a picture that is asked about six times is read once, and cases
named so ask about each picture once. Steering adds one vector after the last block; tokens have to be equal. Rows are
those that wrote the answers; the hooks keep one layer a run, as published code does, and the engine all layers at once.
A last case holds the engine against itself, which shows the noise, and one more counts what `trimtab represent --engine
vllm` writes in the same way: rows of all layers per second, from when its engine begins the second shard.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, it would not find its neighbours

from bench.machine import machine
from bench.ours import MODEL, PROFILE, Case, Run, Served
from bench.pairs import Pair, alternate, estimate, ratios, whole
from bench.published import Published
from bench.represented import Represented
from examples.tinyworld.data import FILES, samples
from examples.tinyworld.draw import draw
from trimtab.offline.models.reader import Question
from trimtab.vectors import ModelIdentity, Profile, SteeringVector, save_profile

TARGET = 10.0
_SETTINGS = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_PLUGINS": "trimtab",
    "HF_HUB_OFFLINE": "1",
}
BATCH = 256
"""Questions that the engine is asked at once."""
_NORM = 4.0
"""Length of the vector; a state after this model's last layer is about 20 long."""

Float32 = npt.NDArray[np.float32]


CASES = (
    Case("answers of 1 token", "answers", 1, steered=True),
    Case("answers of 32 tokens", "answers", 32, steered=True, target=TARGET),
    Case("answers of 32 tokens, a picture each", "answers", 32, steered=True, apart=True),
    Case("states of the last prompt position", "rows", 1, steered=False, target=TARGET),
    Case("states of the last prompt position, a picture each", "rows", 1, steered=False, apart=True),
    Case("states of answers of 32 tokens", "rows", 32, steered=False, target=TARGET),
)
REPRESENTED = Case("represent --engine vllm, last prompt position", "rows", 1, steered=False, target=TARGET)
NOISE = Case("ours against ours, answers of 32 tokens", "answers", 32, steered=True)


class Hooked:
    """The same by hooks, one question after the other; each run takes the next few questions."""

    def __init__(self, layer: int, shift: Float32, some: int) -> None:
        self._published = Published(MODEL)
        self._layer, self._shift, self._some = layer, shift, some
        self._runs = itertools.count()

    def run(self, case: Case, questions: Sequence[Question]) -> Run:
        first = next(self._runs) * self._some % len(questions)
        asked = questions[first : first + self._some]
        started = time.perf_counter()
        if case.steered:
            tokens = self._published.answer(asked, case.tokens, self._layer, self._shift)
            return Run(len(tokens), time.perf_counter() - started, tokens, {}, first)
        rows = self._published.rows(asked, case.tokens, self._layer)
        return Run(len(rows), time.perf_counter() - started, [], {self._layer: rows}, first)


def measure(case: Case, pairs: int, slow: Callable[[], Run], fast: Callable[[], Run]) -> dict[str, Any]:
    """Ratios of the two sides' rates, and what of them was compared.

    Raises:
        SystemExit: tokens or rows differ.
    """
    runs: list[Pair[Run]] = list(alternate(whole(slow), whole(fast), pairs))
    found = estimate(ratios(runs, lambda run: run.count / run.seconds))
    return {
        "case": case.name,
        "ratio": found.median,
        "interval": [found.low, found.high],
        "pairs": found.pairs,
        "hooks": float(np.median([pair.base.count / pair.base.seconds for pair in runs])),
        "served": float(np.median([pair.other.count / pair.other.seconds for pair in runs])),
        "unit": f"{case.unit}/s",
        "target": case.target,
        "held": None if case.target is None else found.low >= case.target,
        **(_compare_tokens if case.steered else _compare_rows)(runs),
    }


def _compare_tokens(runs: Sequence[Pair[Run]]) -> dict[str, Any]:
    both = [
        (one, pair.other.tokens[number])
        for pair in runs
        for number, one in enumerate(pair.base.tokens, start=pair.base.first)
    ]
    equal = sum(one == other for one, other in both)
    if equal != len(both):
        raise SystemExit(f"bench.hooks: only {equal} of {len(both)} answers have equal tokens")
    return {"compared": len(both), "what": "answers with equal tokens"}


def _compare_rows(runs: Sequence[Pair[Run]]) -> dict[str, Any]:
    compared, least = 0, 1.0
    for pair in runs:
        each = len(pair.other.tokens[0])
        for layer, rows in pair.base.rows.items():
            ours = pair.other.rows[layer][pair.base.first * each :][: len(rows)]
            scale = np.linalg.norm(rows, axis=1) * np.linalg.norm(ours, axis=1)
            least = min(least, float(((rows * ours).sum(axis=1) / scale).min()))
            compared += len(rows)
    if least < 0.9999:
        raise SystemExit(f"bench.hooks: rows differ, with a least cosine of {least:.6f}")
    return {"compared": compared, "what": f"rows, least cosine {least:.7f}"}


def _questions(apart: bool) -> list[Question]:
    """Of the dev split: six questions about each picture as it has them, or `apart` the first about each."""
    found: list[Question] = []
    for scene, asked in samples("dev", BATCH, seed=1):
        picture = draw(scene)
        vqa = [Question(sample.question, picture) for sample in asked if sample.type in FILES["vqa.jsonl"]]
        found += vqa[:1] if apart else vqa
        if len(found) >= BATCH:
            break
    return found[:BATCH]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python bench/hooks.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two pairs of few questions: does it run?")
    parser.add_argument("--threads", type=int, default=1, help="of either side (default: 1)")
    parser.add_argument("--json", type=Path, help="write what was found")
    parser.add_argument("--plot", type=Path, help="draw it")
    wanted = parser.parse_args(arguments)
    settings = {**_SETTINGS, "OMP_NUM_THREADS": str(wanted.threads)}
    if any(os.environ.get(name) != value for name, value in settings.items()):  # read when torch and vllm are imported
        os.execve(sys.executable, [sys.executable, "-m", "bench.hooks", *arguments], {**os.environ, **settings})
    pairs, runs, some = (2, 2, 4) if wanted.quick else (30, 8, 8)  # a run of represent starts an engine
    torch.set_num_threads(wanted.threads)
    identity = ModelIdentity.of(MODEL)
    last = identity.num_layers - 1
    shift = np.random.default_rng(0).standard_normal(identity.hidden_size).astype(np.float32)
    shift *= _NORM / np.linalg.norm(shift)
    questions = {apart: _questions(apart) for apart in (False, True)}
    with tempfile.TemporaryDirectory() as folder:
        profile = Profile.coarse(PROFILE, [SteeringVector(last, shift)], model=identity)
        save_profile(profile, Path(folder) / "profiles" / PROFILE)
        represented = Represented(Path(folder), identity.num_layers)
        served = Served(Path(folder) / "profiles", identity.num_layers, BATCH)
        hooked = Hooked(last, shift, some)
        cases: list[dict[str, Any]] = []
        with Progress(console=Console(stderr=True)) as progress:
            for case in progress.track((*CASES, REPRESENTED, NOISE), description="measuring"):
                ours: Represented | Served = represented if case is REPRESENTED else served
                asked = represented.questions if case is REPRESENTED else questions[case.apart]
                fast = functools.partial(ours.run, case, asked)
                slow = fast if case is NOISE else functools.partial(hooked.run, case, asked)
                slow(), fast()  # warm
                cases.append(measure(case, runs if case is REPRESENTED else pairs, slow, fast))
    found = {
        "batch": BATCH,
        "layers": identity.num_layers,
        "threads": wanted.threads,
        "quick": wanted.quick,
        "cases": cases,
        "machine": machine(),
    }
    _table(found, Console())
    if wanted.json:
        wanted.json.write_text(json.dumps(found, indent=1) + "\n")
    if wanted.plot:
        _plot(found, wanted.plot)
    return 0


def _table(found: dict[str, Any], console: Console) -> None:
    table = Table(title=f"Served ({found['batch']} at once) over forward hooks (one at a time)")
    for name in ("case", "hooks", "served", "ratio", "95 % interval", "pairs", "target", "compared"):
        table.add_column(name, justify="left" if name in ("case", "compared") else "right")
    for case in found["cases"]:
        low, high = case["interval"]
        table.add_row(
            case["case"],
            f"{case['hooks']:.1f} {case['unit']}",
            f"{case['served']:.1f} {case['unit']}",
            f"{case['ratio']:.1f}",
            f"{low:.1f} to {high:.1f}",
            str(case["pairs"]),
            "" if case["target"] is None else f"≥ {case['target']:.0f} {'held' if case['held'] else 'missed'}",
            f"{case['compared']} {case['what']}",
        )
    console.print(table)


def _plot(found: dict[str, Any], path: Path) -> None:
    """A dot with its interval for each case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 2.6), layout="constrained")
    cases = found["cases"][::-1]
    for height, case in enumerate(cases):
        axes.plot(case["interval"], (height, height), color="C0")
        axes.plot(case["ratio"], height, "o", color="C0")
    axes.axvline(TARGET, color="C3", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(cases)), [case["case"] for case in cases])
    axes.set_xlabel("times as many as forward hooks at batch 1 (dot: median, line: 95 % interval, red: target)")
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
