"""What the two programs work on: the folders of a study, states of its parts, and a server for their profiles."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from examples.tinyworld.export import MODEL
from examples.tinyworld.scene import Split
from examples.tinyworld.study.prepare import write_folders
from trimtab.offline.models import Reader
from trimtab.offline.states import LayerStates, load_states, represent
from trimtab.offline.states.rules import parse
from trimtab.offline.states.samples import read_samples
from trimtab.offline.states.subset import stratified
from trimtab.offline.tuning import Asking, Exam, Server
from trimtab.offline.tuning.ask import made_of
from trimtab.offline.tuning.server import with_dtype
from trimtab.vectors import AlphaRange, Profile, save_profile

LAYERS = (2, 3, 4, 5)
LAST = 5
STRENGTHS = AlphaRange(default=1.0, min=0.0, max=8.0)
SERVE = with_dtype(("--max-model-len", "512", "--block-size", "32", "--max-num-seqs", "64"), MODEL)
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1"}


@dataclass(frozen=True)
class Lab:
    """A study's folder, OUT, and the model that is steered."""

    out: Path
    model: Path

    @property
    def run(self) -> Path:
        """The run folder that `trimtab tune` writes into as well."""
        return self.out / "run"

    @cached_property
    def reader(self) -> Reader:
        """The model in memory."""
        return Reader(self.model)

    def file(self, data: str, part: Split) -> Path:
        """The samples of a part, which are drawn where they are not there yet."""
        path = self.out / "data" / data / f"{part}.jsonl"
        if not path.is_file():
            write_folders(self.out / "data")
        return path

    def states(self, data: str, rule: str, layer: int, part: Split = "train", draw: int | None = None) -> LayerStates:
        """States at one of LAYERS; made once, and those that `trimtab tune` made are taken.

        draw: of so many samples, those that an exam of so many asks.
        """
        name = f"{self.model.resolve().name}-{data}-{rule.partition(':')[0]}"
        folder = self.run / "states" / (name if part == "train" else f"{name}-{part}")
        file = self.file(data, part)
        represent(self.reader, file, parse(rule), LAYERS, folder, draw=draw, resume=True, progress=True)
        return load_states(folder, layer)

    def exam(self, asking: Asking, data: str, part: Split, count: int) -> Exam:
        """So many samples of a part, asked through a server."""
        samples = stratified(read_samples(self.file(data, part)).samples, count)
        return Exam(asking, "dev" if part == "dev" else "test", samples)

    @contextmanager
    def served(self, profiles: Sequence[Profile]) -> Iterator[Asking]:
        """A server of these profiles and no others."""
        folder = self.run / "tuning" / "programs"
        shutil.rmtree(folder, ignore_errors=True)
        for profile in profiles:
            save_profile(profile, folder / profile.name)
        known = made_of(self.model, SERVE, ENVIRONMENT)
        log = self.run / "tuning" / "server-programs.log"
        with Server(self.model, folder, log, SERVE, ENVIRONMENT) as server:
            yield Asking(server, known, self.run / "tuning" / "asked", max_tokens=6)
