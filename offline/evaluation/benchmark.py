"""What the data sets of the field have in common: questions about pictures, and figures from answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import DataError
from ..findings import Measured
from ..states.samples import Sample
from .effect import Same

__all__ = ["Answers", "Benchmark", "Same", "Scores", "digest_of", "one_file", "picture", "read_json"]

Answers = Mapping[str, str]
"""What was answered, by the sample's id; a skipped sample has none."""


@dataclass(frozen=True)
class Scores:
    """What a run amounts to.

    measured: figures with intervals. plain: figures that have none. notes: how they are to be read.
    warnings: what makes a figure of this run doubtful.
    submission: files in the data set's own form, name → text, for its official evaluator.
    """

    measured: dict[str, Measured]
    plain: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    submission: dict[str, str] = field(default_factory=dict)


class Benchmark(Protocol):
    """A data set, read. digest: "sha256:<hex>" of its files of text, not of the pictures."""

    @property
    def digest(self) -> str: ...

    @property
    def samples(self) -> tuple[Sample, ...]: ...

    @property
    def most_tokens(self) -> int:
        """Where answers are cut unless another length is asked for."""

    @property
    def prompt(self) -> str:
        """What is asked unless another prompt is given; "{question}" stands for the question."""

    @property
    def usual(self) -> Mapping[str, str]:
        """What a steering is taken to be meant for unless a mapping says so: class → class. Empty: nothing is."""

    @property
    def same(self) -> Same | None:
        """Whether two answers are equal in all that no class is told by; None where the class is the whole answer."""

    def score(self, answers: Answers) -> Scores:
        """Figures of one run."""

    def label(self, sample: str, answer: str) -> str:
        """The class of an answer, for the conversion matrix."""

    def mapped(self, word: str) -> str:
        """The class that a word of a mapping stands for: what `label` gives an answer that says it.

        Raises:
            SettingError: it stands for none.
        """

    def compare(self, before: Answers, after: Answers) -> dict[str, Measured]:
        """Figures of a steered run against the unsteered one, beside the conversion matrix."""


def read_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        DataError: it cannot be read or is no JSON; names it.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error})") from error


def one_file(folder: Path, pattern: str) -> Path:
    """The one file of a folder that fits.

    Raises:
        DataError: none or several fit.
    """
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        what = "none" if not found else "several: " + ", ".join(path.name for path in found)
        raise DataError(f"{folder}: exactly one file must be called {pattern}; found {what}")
    return found[0]


def picture(folders: Iterable[Path], name: str) -> Path:
    """Where a picture lies: in the first folder that has it, with the ending of its name or with .png.

    One that lies nowhere is looked for in the first folder again when it is sent, and skipped there.
    """
    places = [folder / name for folder in folders]
    candidates = [other for place in places for other in (place, place.with_suffix(".png"))]
    return next((path for path in candidates if path.is_file()), places[0])


def digest_of(*files: Path) -> str:
    """ "sha256:<hex>" of files, by their order, names and bytes."""
    whole = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        whole.update(f"{path.name} {len(content)}\n".encode() + content)
    return f"sha256:{whole.hexdigest()}"
