"""What two fine-tunes did to the concepts of the tiny LLaVA: `python -m examples.tinyworld.shifts --out RUN`.

Fine-tunes the shipped model on places and on colors, slowly and with checkpoints; studies 20 concepts of captions (the
positions that predict a person) and 20 of answers before and after; follows the concepts' words over the checkpoints;
and sets the correlations, over the concepts of both fine-tunes, beside the published ones. Findings go to RUN, where
`trimtab report` shows them. What is there already is kept, so an interrupted run goes on where it stopped.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from examples.tinyworld.data import MANIFEST, write_split
from examples.tinyworld.export import MODEL, WEIGHTS
from examples.tinyworld.finetune import Tuning, checkpoint, finetune
from examples.tinyworld.scene import PEOPLE
from examples.tinyworld.train import MALLOC
from trimtab.offline.cli.console import quiet
from trimtab.offline.findings import ShiftFound, TableFound, write_finding
from trimtab.offline.models import Reader
from trimtab.offline.shift.run import ShiftRun
from trimtab.offline.shift.training import Training
from trimtab.offline.shift.watch import drift_found
from trimtab.offline.states import LastPrompt, Predicts
from trimtab.offline.states.rules import Rule
from trimtab.offline.statistics import correlation

__all__ = ["TASKS", "Task", "beside_published", "fine_tuned", "study"]

FOCUSES = ("places", "colors")
LAYER = 5
"""The last one, as in the paper."""
PUBLISHED = {"consistency": 0.40, "magnitude": 0.55}
"""r with the recovery, over 60 concepts (docs/method.md §3)."""
_COLUMNS = ("captions or answers", "correlation of recovery with", "r", "low", "high", "concepts")


@dataclass(frozen=True)
class Task:
    """Questions of the split, and which states stand for their concepts.

    samples: how many are asked for the study, watched: of the checkpoints.
    """

    name: str
    file: str
    rule: Rule
    samples: int
    watched: int


TASKS = (
    Task("captions", "captions.jsonl", Predicts(PEOPLE), 1000, 200),
    Task("answers", "vqa.jsonl", LastPrompt(), 2400, 600),
)


def fine_tuned(out: Path, tuning: Tuning) -> Path:
    """The last checkpoint of a fine-tune in `out`, made anew unless it is there."""
    last = checkpoint(out, tuning.steps)
    if not (last / WEIGHTS).exists():
        shutil.rmtree(out, ignore_errors=True)
        finetune(out, tuning)
    return last


def study(out: Path, data: Path, tuned: Path, focus: str, task: Task, k: int, seed: int) -> ShiftFound:
    """The shift between the shipped model and a fine-tune, and the drift over its checkpoints; writes both findings."""
    base, name = Reader(MODEL, "float32"), f"{focus}-{task.name}"
    folder, file = out / "shifts" / name, data / task.file
    run = ShiftRun(folder, file, task.rule, LAYER, k, seed, limit=task.samples, progress=True)
    found = run.study(base, Reader(tuned, "float32")).model_copy(
        update={"title": f"{focus.capitalize()} fine-tune: {task.name}, layer {LAYER}"}
    )
    write_finding(out, name, found)
    watch = ShiftRun(folder / "checkpoints", file, task.rule, LAYER, k, seed, limit=task.watched, progress=True)
    watched = watch.watched(base)
    drifts = list(watch.drifts(watched, Training(tuned.parent)))
    title = f"{focus.capitalize()} fine-tune: words of {task.name} against training step"
    write_finding(out, name, drift_found(watched, drifts, title))
    curve = ", ".join(f"{drift.step}: {drift.overlap:.0f}" for drift in drifts)
    print(f"{name}: T-Overlap in percent by step: 0: 100, {curve}", flush=True)
    print(
        f"{name}: held out: " + ", ".join(f"{what} {one.value:.3f}" for what, one in found.controls.items()), flush=True
    )
    return found


def beside_published(found: Mapping[str, Sequence[ShiftFound]], seed: int) -> TableFound:
    """Correlations over the concepts of all fine-tunes, for each task, under the published ones."""
    rows: list[tuple[str | float | None, ...]] = [
        ("captions, published", name, r, None, None, 60) for name, r in PUBLISHED.items()
    ]
    for task, studies in found.items():
        concepts = [concept for one in studies for concept in one.concepts]
        recovery = [float("nan") if concept.recovery is None else concept.recovery for concept in concepts]
        for name, ranks in product((*PUBLISHED, "pairwise_consistency"), (False, True)):
            measured = correlation([getattr(concept, name) for concept in concepts], recovery, seed, ranks=ranks)
            figures = (measured.value, measured.low, measured.high) if measured else (None, None, None)
            rows.append((task, name.replace("_", " ") + ", by rank" * ranks, *figures, len(concepts)))
    return TableFound(
        title="Does a consistent, or a large, shift predict recovery?",
        note="95 % bootstrap intervals over concepts. Recovery is on the samples that the shift was found on.",
        columns=_COLUMNS,
        rows=tuple(rows),
        published=tuple(range(len(PUBLISHED))),
        command="python -m examples.tinyworld.shifts --out RUN",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Studies what two fine-tunes did to the tiny LLaVA's concepts.")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, states and findings")
    parser.add_argument("--scenes", type=int, default=1000, help="scenes of the dev split to ask about")
    parser.add_argument("--steps", type=int, default=120, help="steps of each fine-tune")
    parser.add_argument("--save-every", type=int, default=30, help="steps between two checkpoints")
    parser.add_argument("--rate", type=float, default=1e-4, help="largest learning rate of the fine-tunes")
    parser.add_argument("--k", type=int, default=20, help="concepts")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if not MALLOC.keys() <= os.environ.keys():
        os.environ.update(MALLOC, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
        os.execv(sys.executable, [sys.executable, "-m", "examples.tinyworld.shifts", *sys.argv[1:]])
    torch.set_num_threads(1)
    quiet()
    data = asked.out / f"dev-{asked.scenes}"
    if not (data / MANIFEST).exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        write_split(data, "dev", asked.scenes, asked.seed)
    found: dict[str, list[ShiftFound]] = {task.name: [] for task in TASKS}
    for focus in FOCUSES:
        tuning = Tuning(focus, asked.steps, asked.save_every, seed=asked.seed, rate=asked.rate)
        tuned = fine_tuned(asked.out / "models" / focus, tuning)
        for task in TASKS:
            found[task.name].append(study(asked.out, data, tuned, focus, task, asked.k, asked.seed))
    table = beside_published(found, asked.seed)
    write_finding(asked.out, "shift-correlations", table)
    for row in (table.columns, *table.rows):
        print(
            " | ".join("–" if cell is None else f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row)
        )


if __name__ == "__main__":
    main()
