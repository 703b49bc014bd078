"""A few answers of the same model to the same picture, without steering and with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from examples.tinyworld.ask import Sample
from examples.tinyworld.data import read_split
from examples.tinyworld.demo.client import Client, How
from examples.tinyworld.demo.profiles import GENDER, LAST_LAYER, VQA, profile_name

CANDIDATES = 12
"""Pictures that are asked about until one has the answer that a profile turns."""


@dataclass(frozen=True)
class BeforeAfter:
    """One question about one picture, answered twice."""

    picture: Path
    question: str
    profile: str
    before: str
    after: str


def examples(client: Client, folder: Path) -> list[BeforeAfter]:
    """One for each profile that changes an answer among the first pictures; those that do not are left out."""
    samples = read_split(folder)
    wanted = [(GENDER, [sample for sample in samples if sample.type == "caption"])]
    for steering in ("yes->no", "white->black"):
        source, _ = VQA[steering]
        asked = [sample for sample in samples if sample.answer == source]
        wanted.append((profile_name(steering, "fine", LAST_LAYER), asked))
    return [one for profile, asked in wanted for one in _first(client, folder, profile, asked[:CANDIDATES])]


def _first(client: Client, folder: Path, profile: str, samples: list[Sample]) -> Iterator[BeforeAfter]:
    before = client.ask(folder, samples, label="unsteered")
    after = client.ask(folder, samples, How(profile, 1.0), label=profile)
    for sample, old, new in zip(samples, before, after, strict=True):
        if old != new:
            yield BeforeAfter(folder / sample.image, sample.question, profile, old, new)
            return
