"""Representations on disk: a folder of safetensors shards with a manifest that says what they are.

    manifest.json            what was asked of which model, the finished shards with their digests, the skipped samples
    rows-00000.safetensors   layers.<l> float32 [n, D]; sample, position, token, label int64 [n]
    rows-00000.jsonl         one line a sample of the shard: id, and the answer that was generated

A shard covers a fixed run of samples, and the manifest is replaced after each one. Whatever the moment of a kill, what
the manifest names is whole; what it does not name is made again, to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from trimtab.vectors import ModelIdentity

from ..errors import DataError, SettingError
from ..files import write_whole

MANIFEST = "manifest.json"
_COLUMNS = ("sample", "position", "token", "label")

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class Request(BaseModel):
    """What was asked for. A run is resumed only with the very same request: otherwise its bytes would differ."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelIdentity
    data: str
    samples: int
    rule: str
    layers: tuple[int, ...]
    dtype: str
    batch_size: int
    shard_size: int
    max_new_tokens: int


class Skip(BaseModel):
    """A sample that gave no row, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    reason: str


class Shard(BaseModel):
    """A finished shard: samples [start, stop) of the data file, `rows` rows, sha256 (hex) of its two files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    start: int
    stop: int
    rows: int
    sha256: dict[str, str]
    skipped: tuple[Skip, ...] = ()


class Manifest(BaseModel):
    """The manifest of a folder of representations. `labels` is the vocabulary that the shards' label numbers index."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    request: Request
    versions: dict[str, str]
    labels: tuple[str, ...] = ()
    shards: tuple[Shard, ...] = ()

    @property
    def done(self) -> int:
        """How many samples the finished shards cover."""
        return self.shards[-1].stop if self.shards else 0

    @property
    def complete(self) -> bool:
        """Whether every sample has been seen."""
        return self.done == self.request.samples

    @property
    def rows(self) -> int:
        """Number of rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def skipped(self) -> tuple[Skip, ...]:
        """All samples that gave no row."""
        return tuple(skip for shard in self.shards for skip in shard.skipped)


@dataclass(frozen=True)
class LayerStates:
    """The rows of one layer, ready for a dictionary.

    values: float32 [N, D]. labels: N words. tokens: int64 [N], the id that each row predicts, -1 if none.
    sample_ids: N ids of the data file's samples. positions: int64 [N], see `trimtab.offline.states.rules` (-1: a mean).
    """

    layer: int
    values: Float32
    labels: tuple[str, ...]
    tokens: Int64
    sample_ids: tuple[str, ...]
    positions: Int64
    manifest: Manifest

    def of(self, words: set[str]) -> npt.NDArray[np.bool_]:
        """Which rows are labelled by one of `words`: bool [N]."""
        return np.fromiter((label in words for label in self.labels), dtype=np.bool_, count=len(self.labels))

    def at(self, indices: Int64) -> LayerStates:
        """The rows at these indices, in this order. indices: int64 [n]."""
        return replace(
            self,
            values=self.values[indices],
            labels=tuple(self.labels[i] for i in indices),
            tokens=self.tokens[indices],
            sample_ids=tuple(self.sample_ids[i] for i in indices),
            positions=self.positions[indices],
        )


def open_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest, whole or in the middle of its making.

    Raises:
        DataError: none there, or not one of ours.
    """
    try:
        text = (folder / MANIFEST).read_text("utf-8")
    except OSError as error:
        raise DataError(f"{folder}: holds no {MANIFEST}; make representations with `trimtab represent`") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{folder}/{MANIFEST}: is not UTF-8 text; make the representations again") from error
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(
            f"{folder}/{MANIFEST}: is not a manifest of representations ({where}: {first['msg']}); make them again"
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the folder's manifest in one step."""
    write_whole(folder / MANIFEST, (manifest.model_dump_json(indent=1) + "\n").encode())


def write_shard(folder: Path, name: str, tensors: Mapping[str, npt.NDArray[Any]], answers: bytes) -> dict[str, str]:
    """Write a shard's two files, each in one step; the sha256 (hex) of each by file name."""
    contents = {f"{name}.safetensors": save(dict(tensors)), f"{name}.jsonl": answers}
    for file, content in contents.items():
        write_whole(folder / file, content)
    return {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}


class ShardedStates:
    """The rows of one layer, a shard at a time, for what is larger than memory.

    Whoever iterates gets one `LayerStates` a shard, as often as he likes: each time it is read anew and its digest
    checked. Only the asked layer is in memory, not the others of the shard. `len` is the number of rows.

    Raises:
        DataError: incomplete, or without any row; when iterating: a shard missing or altered, a number not finite.
        SettingError: the layer was not kept.
    """

    def __init__(self, folder: Path, layer: int) -> None:
        self.manifest = open_manifest(folder)
        self.layer = layer
        self._folder = folder
        if not self.manifest.complete:
            raise DataError(
                f"{folder}: holds {self.manifest.done:,} of {self.manifest.request.samples:,} samples; "
                "finish it with `trimtab represent … --resume`"
            )
        if layer not in self.manifest.request.layers:
            kept = ", ".join(map(str, self.manifest.request.layers))
            raise SettingError(f"{folder}: layer {layer} was not kept; the layers there are {kept}")
        if not len(self):
            rule = self.manifest.request.rule
            raise DataError(f"{folder}: holds no row at all; no answer had what the rule {rule!r} keeps")

    def __len__(self) -> int:
        return self.manifest.rows

    def __iter__(self) -> Iterator[LayerStates]:
        for shard in self.manifest.shards:
            if not shard.rows:
                continue
            try:
                rows = _read_shard(self._folder, shard, self.layer, self.manifest)
            except (LookupError, OSError, TypeError, ValueError, SafetensorError) as error:
                raise DataError(
                    f"{self._folder}: its manifest and its shards do not fit together; make them again"
                ) from error
            yield rows


def load_states(folder: Path, layer: int) -> LayerStates:
    """Every row of one layer, with each shard's digest checked.

    Raises:
        DataError, SettingError: as `ShardedStates`.
    """
    return joined(ShardedStates(folder, layer))


def joined(blocks: Iterable[LayerStates]) -> LayerStates:
    """The states of all blocks, one after the other.

    Raises:
        DataError: no block at all; and what reading the blocks raises.
    """
    parts = list(blocks)
    if not parts:
        raise DataError("there are no states; represent more samples, or use another rule")
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        values=np.concatenate([part.values for part in parts]),
        labels=tuple(label for part in parts for label in part.labels),
        tokens=np.concatenate([part.tokens for part in parts]),
        sample_ids=tuple(identifier for part in parts for identifier in part.sample_ids),
        positions=np.concatenate([part.positions for part in parts]),
    )


def verify_states(folder: Path) -> Manifest:
    """Check every file that the manifest names against its digest, finished or not.

    Raises:
        DataError: as `load_states`.
    """
    manifest = open_manifest(folder)
    for shard in manifest.shards:
        check_shard(folder, shard)
    return manifest


def check_shard(folder: Path, shard: Shard) -> None:
    """Compare a shard's files with its digests, without holding them in memory.

    Raises:
        DataError: a file is missing or not what was written.
    """
    for name, expected in shard.sha256.items():
        try:
            with open(folder / Path(name).name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{folder}/{name}: is missing or unreadable; make the representations again") from error
        if found != expected:
            raise DataError(
                f"{folder}/{name}: is not what was written (its sha256 differs from the manifest's); "
                "make the representations again"
            )


def _read_shard(folder: Path, shard: Shard, layer: int, manifest: Manifest) -> LayerStates:
    check_shard(folder, shard)
    where = folder / f"{shard.name}.safetensors"
    with safe_open(where, framework="numpy") as file:
        values, *columns = (file.get_tensor(name) for name in (f"layers.{layer}", *_COLUMNS))
    if values.shape != (shard.rows, manifest.request.model.hidden_size):
        raise DataError(f"{where}: layer {layer} has shape {values.shape}; make the representations again")
    if not np.isfinite(values).all():
        raise DataError(f"{where}: layer {layer} holds numbers that are not finite; try --dtype float32")
    ids = [json.loads(line)["id"] for line in (folder / f"{shard.name}.jsonl").read_bytes().splitlines()]
    samples, positions, tokens, labels = columns
    return LayerStates(
        layer=layer,
        values=values,
        labels=tuple(manifest.labels[label] for label in labels),
        tokens=tokens,
        sample_ids=tuple(ids[sample - shard.start] for sample in samples),
        positions=positions,
        manifest=manifest,
    )
