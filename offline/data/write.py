"""A data folder: train.jsonl, dev.jsonl, test.jsonl, and data.json, which says what they are."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import DataError, SettingError
from ..states.data_folder import FILE, PARTS, DataFolder, write_data_folder
from ..states.prompts import check_prompt
from ..states.samples import Sample
from .contrast import contrasted
from .source import Source
from .split import Shares, drawn, split

__all__ = ["parse_shares", "write_data"]


def parse_shares(text: str) -> Shares:
    """(0.6, 0.2, 0.2) from "0.6,0.2,0.2".

    Raises:
        SettingError: not three shares that sum to 1.
    """
    try:
        train, dev, test = map(float, text.split(","))
    except ValueError:
        train = dev = test = -1.0
    if not (min(train, dev, test) >= 0 and abs(train + dev + test - 1) < 1e-6):
        raise SettingError(f"--split {text}: expected the shares of train, dev and test, which sum to 1: 0.6,0.2,0.2")
    return train, dev, test


def write_data(
    source: Source,
    where: str,
    out: Path,
    *,
    shares: Shares = (0.6, 0.2, 0.2),
    seed: int = 0,
    draw: int | None = None,
    prompt: str | None = None,
    contrast: Mapping[str, str] | None = None,
) -> DataFolder:
    """Split a source and write its parts to a new folder; what its data.json says.

    where: the source as it was given. draw: how many samples to take of all parts together, before each is written once
    per contrast. Pictures stay where they are: their paths are relative to `out` where they lie below the folder that
    `out` is in, else absolute.

    Raises:
        DataError: `out` holds such files, cannot be written, or the source has too few pictures, or none of them is
            there. SettingError: a prompt without a place for the question; see `contrasted`.
    """
    if present := [name for name in (*(f"{part}.jsonl" for part in PARTS), FILE) if (out / name).exists()]:
        raise DataError(f"{out}: holds {present[0]} already; choose another folder")
    prompt = source.prompt if prompt is None else prompt
    check_prompt(prompt, source.samples)
    _check_pictures(source, where)
    parts = split(source.samples, source.groups, shares, seed)
    if draw is not None:
        parts = drawn(parts, shares, draw, seed)
    if contrast:
        parts = {part: contrasted(samples, contrast) for part, samples in parts.items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        digests = {part: _write(out / f"{part}.jsonl", samples) for part, samples in parts.items()}
        made = DataFolder(
            source=where,
            format=source.format,
            digest=source.digest,
            prompt=prompt,
            seed=seed,
            shares=shares,
            drawn=draw,
            contrast=dict(contrast or {}),
            parts=digests,
            samples={part: len(samples) for part, samples in parts.items()},
        )
        write_data_folder(out, made)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror})") from error
    return made


def _check_pictures(source: Source, where: str) -> None:
    pictures = [one.image for one in source.samples if one.image is not None]
    if pictures and not any(path.is_file() for path in pictures):
        raise DataError(
            f"{where}: none of its {len(pictures):,} pictures is there ({pictures[0]} is the first); name their folder "
            "by --images"
        )


def _write(path: Path, samples: tuple[Sample, ...]) -> str:
    content = "".join(json.dumps(_line(one, path.parent), ensure_ascii=False) + "\n" for one in samples).encode()
    path.write_bytes(content)
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _line(sample: Sample, folder: Path) -> dict[str, str]:
    line = {"id": sample.id, "question": sample.question}
    if sample.image is not None:
        line["image"] = _placed(sample.image, folder)
    own = {"answer": sample.answer, "type": sample.type}
    return {**line, **{name: text for name, text in own.items() if text}, **sample.columns}


def _placed(image: Path, folder: Path) -> str:
    """A picture's path as a samples file in `folder` names it."""
    image, folder = Path(os.path.abspath(image)), Path(os.path.abspath(folder))
    return os.path.relpath(image, folder) if image.is_relative_to(folder.parent) else str(image)
