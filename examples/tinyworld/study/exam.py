"""The questions of a split, asked through the server. An answer that was had once is kept on disk."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from examples.tinyworld.ask import Sample
from examples.tinyworld.demo.client import UNSTEERED, Client, How, most_tokens
from examples.tinyworld.precision import served_dtype
from trimtab.offline.files import write_whole
from trimtab.plugin.compat.versions import OP_VERSION, installed_vllm
from trimtab.vectors import ModelIdentity, Profile


@dataclass(frozen=True)
class Server:
    """A running server: its profiles by name, what made it (see `made_of`), and the folder for answers."""

    client: Client
    profiles: Mapping[str, Profile]
    made_of: Mapping[str, str]
    kept: Path


def made_of(model: Path) -> dict[str, str]:
    """All that decides what a server of a model answers, beside the request and its profile.

    Weights, the model's other files (its template among them), vLLM, torch, the steering op, the type of numbers, the
    processor's instructions, and what the environment tells vLLM.
    """
    rest = hashlib.sha256()
    for file in sorted(one for one in model.iterdir() if one.suffix in (".json", ".jinja")):
        rest.update(file.name.encode() + b"\0" + file.read_bytes())
    return {
        "weights": ModelIdentity.of(model).fingerprint or "",
        "files": rest.hexdigest(),
        "vllm": str(installed_vllm()),
        "torch": torch.__version__,
        "op": str(OP_VERSION),
        "dtype": served_dtype(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "environment": json.dumps({name: value for name, value in sorted(os.environ.items()) if name[:5] == "VLLM_"}),
    }


@dataclass(frozen=True)
class Exam:
    """Some samples of a split. folder: where their pictures are."""

    server: Server
    split: Literal["dev", "test"]
    folder: Path
    samples: Sequence[Sample]

    @cached_property
    def plain(self) -> list[str]:
        """The unsteered answers."""
        return self._ask(UNSTEERED)

    def steered(self, profile: str, alpha: float) -> list[str]:
        """The answers with a profile on; as many as there are samples, in their order."""
        return self._ask(How(profile, alpha))

    def only(self, wanted: Sequence[bool]) -> Exam:
        """The samples that are wanted."""
        samples = [sample for sample, good in zip(self.samples, wanted, strict=True) if good]
        return Exam(self.server, self.split, self.folder, samples)

    def _ask(self, how: How) -> list[str]:
        file = self.server.kept / f"{self._key(how)}.json"
        if not file.is_file():
            label = f"{self.split} {how.profile or 'unsteered'} {how.alpha or 0:g}"
            answers = self.server.client.ask(self.folder, self.samples, how, label=label)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(answers).encode())
        found: list[str] = json.loads(file.read_text())
        return found

    def _key(self, how: How) -> str:
        """Of everything that decides the answers: what the server is made of, the pictures' bytes, and each request."""
        digest = self.server.profiles[how.profile].digest if how.profile else ""
        asked = [
            [_picture(self.folder / sample.image), sample.question, most_tokens(sample)] for sample in self.samples
        ]
        said = json.dumps([dict(self.server.made_of), digest, how.alpha, how.extra, asked], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:32]


@functools.cache
def _picture(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
