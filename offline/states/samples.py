"""The samples that a model is asked: a JSON-lines file, one question a line, with or without a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from .lines import json_rows, read_text

_OWN = frozenset({"id", "question", "image", "answer", "type"})


@dataclass(frozen=True)
class Sample:
    """One question.

    image: absolute, or relative to the working directory; None for a question about no picture. answer, type: the data
    set's own (the right answer; yes/no, number, other); representing needs neither. columns: whatever else the line
    says of it, as text, by name. weight: how many samples of its file it stands for, where a draw left some out.
    """

    id: str
    question: str
    image: Path | None = None
    answer: str = ""
    type: str = ""
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    weight: float = 1.0


@dataclass(frozen=True)
class SampleFile:
    """The samples of a file, in its order. `digest` is "sha256:<hex>" of the whole file, not of the pictures."""

    path: Path
    digest: str
    samples: tuple[Sample, ...]


def read_samples(path: Path, limit: int | None = None) -> SampleFile:
    """Read a JSON-lines file with the keys id, question, and optionally image (relative to the file), answer, type.

    Other keys are columns where they hold text, a number or a boolean (numbers and booleans as JSON writes them), and
    are ignored elsewhere; so are blank lines. With `limit`, only the first `limit` samples are kept (the digest remains
    that of the whole file).

    Raises:
        DataError: no such file, not UTF-8, a line that is no JSON object, a missing or empty key, an id that comes
            twice, or no sample at all. The message names the line.
    """
    if limit is not None and limit < 1:
        raise DataError(f"{path}: a limit of {limit} samples leaves nothing to do; give 1 or more")
    text, digest = read_text(path, "a JSON-lines file of samples")
    samples: list[Sample] = []
    seen: dict[str, str] = {}
    for where, row in json_rows(path, text, "an object with the keys id and question"):
        sample = _sample(row, where, path.parent)
        if sample.id in seen:
            raise DataError(f"{where}: id {sample.id!r} stands on {seen[sample.id].rpartition(', ')[2]} already")
        seen[sample.id] = where
        samples.append(sample)
        if limit is not None and len(samples) == limit:
            break
    if not samples:
        raise DataError(f"{path}: holds no sample; expected one JSON object a line")
    return SampleFile(path, digest, tuple(samples))


def check_pictures(file: SampleFile) -> None:
    """Passes unless every picture is missing: then the folder is wrong, and nothing slow should begin.

    Raises:
        DataError: names the first one.
    """
    pictures = [sample.image for sample in file.samples if sample.image is not None]
    if pictures and not any(path.is_file() for path in pictures):
        raise DataError(
            f"{file.path}: none of its {len(pictures):,} pictures is there ({pictures[0]} is the first); "
            "paths of pictures are relative to the folder of this file"
        )


def plain(value: object) -> str | None:
    """Text, a number or a boolean, as text; None for all else."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def _sample(fields: Mapping[str, Any], where: str, folder: Path) -> Sample:
    identifier = fields.get("id")
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    image = fields.get("image")
    if image is not None and (not isinstance(image, str) or not image):
        raise DataError(f"{where}: the key 'image' must be a path, relative to the file, or be left out")
    return Sample(
        id=_text(identifier, "id", where),
        question=_text(fields.get("question"), "question", where),
        image=None if image is None else folder / image,
        answer=plain(fields.get("answer")) or "",
        type=plain(fields.get("type")) or "",
        columns={
            name: text for name, value in fields.items() if name not in _OWN and (text := plain(value)) is not None
        },
    )


def _text(value: object, key: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: the key {key!r} must hold text; got {value!r}")
    return value
