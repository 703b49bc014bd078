"""What every part works on: the pictures of three splits, and states of the train split."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from examples.tinyworld.ask import Sample, Type
from examples.tinyworld.data import read_split
from examples.tinyworld.demo.profiles import data_folder
from examples.tinyworld.scene import Split
from trimtab.offline.models import Reader
from trimtab.offline.states import LayerStates, load_states, represent
from trimtab.offline.states.rules import parse
from trimtab.vectors import AlphaRange

SCENES: dict[Split, int] = {"train": 200, "dev": 100, "test": 400}
LAYERS = (2, 3, 4, 5)
LAST = 5
STRENGTHS = AlphaRange(default=1.0, min=0.0, max=8.0)
"""What a request may ask for: far past what is useful, for the curves are to show where steering ends."""


@dataclass(frozen=True)
class Lab:
    """Folders of one study: OUT/data, OUT/states, OUT/profiles, OUT/asked, OUT/run.

    model: the folder of the model that is steered. base: of the one that it was made from, if it is a fine-tune.
    """

    out: Path
    model: Path
    base: Path | None = None

    @property
    def run(self) -> Path:
        """Where findings go."""
        return self.out / "run"

    @cached_property
    def reader(self) -> Reader:
        """The model in memory."""
        return Reader(self.model)

    def split(self, name: Split) -> Path:
        """The folder of a split, which is drawn where it is not there yet."""
        folder = self.out / "data" / name
        data_folder(folder, name, SCENES[name])
        return folder

    def samples(self, name: Split, types: tuple[Type, ...], most: int | None = None) -> list[Sample]:
        """The first samples of a split that are of these types."""
        return [sample for sample in read_split(self.split(name)) if sample.type in types][:most]

    def states(self, file: str, rule: str, layer: int, split: Split = "train") -> LayerStates:
        """States of a file of a split, such as vqa.jsonl, at one of LAYERS; made once, continued if cut short."""
        kind = rule.partition(":")[0] if split == "train" else f"{rule.partition(':')[0]}-{split}"
        folder = self.out / "states" / f"{self.model.resolve().name}-{Path(file).stem}-{kind}"
        represent(self.reader, self.split(split) / file, parse(rule), LAYERS, folder, resume=True, progress=True)
        return load_states(folder, layer)

    def forget_profiles(self) -> Path:
        """The empty folder of profiles."""
        folder = self.out / "profiles" / self.model.resolve().name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder
