"""The questions of a split, asked through the server. An answer that was had once is kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from examples.tinyworld.ask import Sample
from examples.tinyworld.demo.client import UNSTEERED, Client, How
from trimtab.offline.files import write_whole
from trimtab.vectors import Profile


@dataclass(frozen=True)
class Server:
    """A running server: its profiles by name, the fingerprint of its weights, and the folder for answers."""

    client: Client
    profiles: Mapping[str, Profile]
    model: str
    kept: Path


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
        digest = self.server.profiles[how.profile].digest if how.profile else ""
        asked = [[sample.image, sample.question, sample.type] for sample in self.samples]
        said = json.dumps([self.server.model, self.split, digest, how.alpha, asked])
        return hashlib.sha256(said.encode()).hexdigest()[:32]
