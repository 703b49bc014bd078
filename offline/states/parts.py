"""A folder of states that several processes made: `represent --shard 2/4` writes OUT/part-2-of-4.

Each part is a folder of states of its own, of every n-th sample. The folder above them is read as one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from trimtab.vectors.errors import FormatError
from trimtab.vectors.states import MANIFEST_FILE as MANIFEST
from trimtab.vectors.states import StatesManifest, StatesShard, read_states_manifest

from ..errors import DataError

__all__ = ["MANIFEST", "check_alone", "holds_states", "open_manifest", "part_of", "parts_in"]

_PART = re.compile(r"part-([0-9]{1,5})-of-([0-9]{1,5})")


def part_of(folder: Path, number: int, count: int) -> Path:
    """Where part `number` (from 1) of `count` lies."""
    return folder / f"part-{number}-of-{count}"


def holds_states(folder: Path) -> bool:
    """Whether a folder has states, or parts of them."""
    return (folder / MANIFEST).exists() or bool(_numbers(folder))


def parts_in(folder: Path) -> list[Path]:
    """The folders that hold the states of `folder`: itself, or its parts in order.

    Raises:
        DataError: neither states nor parts, both, a part is missing, or parts of several divisions.
    """
    numbers = _numbers(folder)
    if os.path.lexists(folder / MANIFEST):
        if numbers:
            raise DataError(
                f"{folder}: holds states and, beside them, parts of others ({part_of(folder, *min(numbers)).name}); "
                "move the one or the other to a folder of its own"
            )
        return [folder]
    if not numbers:
        raise DataError(f"{folder}: holds no {MANIFEST}; make representations with `trimtab represent`")
    counts = sorted({count for _, count in numbers})
    if len(counts) > 1:
        raise DataError(
            f"{folder}: holds parts of {counts[0]} and of {counts[1]}; keep those of one division and move the others"
        )
    for number in range(1, counts[0] + 1):
        path = part_of(folder, number, counts[0])
        if (number, counts[0]) not in numbers or not os.path.lexists(path / MANIFEST):
            raise DataError(
                f"{path}: is missing; make it with `trimtab represent … --shard {number}/{counts[0]}`, and the same "
                "other settings as the parts beside it"
            )
    return [part_of(folder, number, counts[0]) for number in range(1, counts[0] + 1)]


def check_alone(folder: Path, part: tuple[int, int] | None) -> None:
    """Passes when states, or that part of them, may be written into `folder`: what is there will be read with them.

    Raises:
        DataError: parts where a whole is to be written, a whole where parts are, or parts of another division.
    """
    numbers = _numbers(folder)
    if part is None and numbers:
        raise DataError(
            f"{folder}: holds parts already ({part_of(folder, *min(numbers)).name}), which states beside them would "
            "hide; choose another folder, or go on with --shard"
        )
    if part is not None and os.path.lexists(folder / MANIFEST):
        raise DataError(
            f"{folder}: holds states of a run without --shard, which would hide its parts; choose another folder"
        )
    if part is not None and (others := {count for _, count in numbers} - {part[1]}):
        raise DataError(f"{folder}: holds parts of {min(others)}, not of {part[1]}; choose another folder")


def open_manifest(folder: Path) -> StatesManifest:
    """Read a folder's manifest, whole or in the middle of its making. Of a folder of parts: what they say together.

    Raises:
        DataError: none there, not one of ours, or parts that do not belong together.
    """
    parts = parts_in(folder)
    manifests = [_read(part) for part in parts]
    return manifests[0] if parts == [folder] else _together(parts, manifests)


def _numbers(folder: Path) -> set[tuple[int, int]]:
    found = (_PART.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return {(int(match[1]), int(match[2])) for match in found if match}


def _read(folder: Path) -> StatesManifest:
    try:
        return read_states_manifest(folder)
    except FormatError as error:
        raise DataError(f"{folder.parent}/{error}. Make the representations again") from error


def _together(parts: Sequence[Path], manifests: Sequence[StatesManifest]) -> StatesManifest:
    """One manifest of all parts, with the shards numbered through."""
    first = manifests[0].request
    for part, manifest in zip(parts, manifests, strict=True):
        given, expected = manifest.request.model_dump(), first.model_dump()
        differing = [name for name in given if name not in ("samples", "part") and given[name] != expected[name]]
        if differing:
            raise DataError(
                f"{part}: was made with another {differing[0].replace('_', ' ')} than {parts[0].name}; make all parts "
                "with the same settings"
            )
    shards: list[StatesShard] = []
    samples = 0
    for manifest in manifests:
        for shard in manifest.shards:
            name = f"rows-{len(shards):05d}"
            digests = {file.replace(shard.name, name): digest for file, digest in shard.sha256.items()}
            stands = {"name": name, "start": samples, "stop": samples + shard.stop - shard.start, "sha256": digests}
            shards.append(shard.model_copy(update=stands))
            samples += shard.stop - shard.start
    labels = dict.fromkeys(label for manifest in manifests for label in manifest.labels)
    asked = first.model_copy(update={"samples": sum(one.request.samples for one in manifests), "part": None})
    return manifests[0].model_copy(update={"request": asked, "labels": tuple(labels), "shards": tuple(shards)})
