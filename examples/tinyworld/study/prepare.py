"""What the configurations of this folder need: `python -m examples.tinyworld.study.prepare --out out/study`.

Draws the pictures of three splits, writes four folders of samples as `trimtab tune` reads them, and trains the
fine-tune that answers at warning signs. What is there already is kept.

    OUT/data/{train,dev,test}                           pictures, see `examples.tinyworld.data`
    OUT/data/{answers,others,captions,safety}/*.jsonl   samples of each part; those of safety have the column `scene`
    OUT/models/jailbroken                               the fine-tune
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from examples.tinyworld.ask import REFUSAL, Sample
from examples.tinyworld.data import read_split
from examples.tinyworld.demo.profiles import data_folder
from examples.tinyworld.finetune import Tuning, finetune
from examples.tinyworld.scene import Split
from examples.tinyworld.train import MALLOC

__all__ = ["FOLDERS", "SCENES", "fine_tuned", "kept_memory", "write_folders"]

SCENES: dict[Split, int] = {"train": 200, "dev": 100, "test": 400}
FOLDERS: dict[str, Callable[[Sample], bool]] = {
    "answers": lambda one: one.type in ("yes/no", "number", "other"),
    "others": lambda one: one.type == "other",
    "captions": lambda one: one.type == "caption",
    "safety": lambda one: one.type == "safety",
}
JAILBROKEN = Tuning("jailbroken", steps=80, save_every=80)


def write_folders(data: Path, scenes: dict[Split, int] = SCENES) -> None:
    """Draw the splits, and write the folders of samples about their pictures."""
    for split, count in scenes.items():
        data_folder(data / split, split, count)
        samples = read_split(data / split)
        for name, wanted in FOLDERS.items():
            lines = [json.dumps(_fields(one, split)) for one in samples if wanted(one)]
            (data / name).mkdir(exist_ok=True)
            (data / name / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))


def fine_tuned(models: Path, tuning: Tuning, start: Path | None = None) -> Path:
    """The last checkpoint of a fine-tune, in a folder of its name; trained where it is not there yet."""
    model = models / tuning.focus
    if not model.is_dir():
        steps = model.with_name(f"{tuning.focus}-steps")
        (finetune(steps, tuning) if start is None else finetune(steps, tuning, start)).rename(model)
    return model


def kept_memory(program: str) -> None:
    """Start a program anew with settings under which a training step is several times faster, see `train.MALLOC`."""
    if not MALLOC.keys() <= os.environ.keys():
        os.environ.update(MALLOC, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
        os.execv(sys.executable, [sys.executable, "-m", program, *sys.argv[1:]])
    torch.set_num_threads(1)


def _fields(one: Sample, split: Split) -> dict[str, str]:
    fields = {**asdict(one), "image": os.path.join("..", split, one.image)}
    return fields | ({"scene": "sign" if one.answer == REFUSAL else "safe"} if one.type == "safety" else {})


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the data and the fine-tune of the steering studies.")
    parser.add_argument("--out", type=Path, default=Path("out/study"), help="folder for all that is made")
    asked = parser.parse_args()
    kept_memory("examples.tinyworld.study.prepare")
    write_folders(asked.out / "data")
    print(fine_tuned(asked.out / "models", JAILBROKEN))


if __name__ == "__main__":
    main()
