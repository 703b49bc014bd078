"""States read back from disk, with every digest checked. The folder's form is in `trimtab.vectors.states`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from trimtab.vectors.states import BACKGROUND, COLUMNS, SAMPLE_LABEL, WEIGHT, StatesManifest, StatesShard

from ..errors import DataError, SettingError
from ..progress import progress as shown
from .parts import MANIFEST, open_manifest, parts_in

__all__ = [
    "MANIFEST",
    "LayerStates",
    "ShardedStates",
    "check_shard",
    "load_background",
    "load_states",
    "open_manifest",
    "verify_states",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LayerStates:
    """The states of one layer, ready for a dictionary.

    values: float32 [N, D]. labels: N words. tokens: int64 [N], the id that each state predicts, -1 if none.
    sample_ids: N ids of the data file's samples. positions: int64 [N], see `trimtab.offline.states.rules` (-1: a mean).
    weights: float64 [N], how many served positions each stands for. More than 1 for a background state that speaks for
    several positions, for a drawn sample, and for a label of which `most_per_label` kept states out.
    sample_labels: N labels of the states' samples; None where labels do not speak of samples.
    """

    layer: int
    values: Float32
    labels: tuple[str, ...]
    tokens: Int64
    sample_ids: tuple[str, ...]
    positions: Int64
    weights: Float64
    manifest: StatesManifest
    sample_labels: tuple[str, ...] | None = None

    def of(self, words: set[str]) -> npt.NDArray[np.bool_]:
        """Which states are labelled by one of `words`: bool [N]."""
        return np.fromiter((label in words for label in self.labels), dtype=np.bool_, count=len(self.labels))

    def at(self, indices: Int64) -> LayerStates:
        """The states at these indices, in this order. indices: int64 [n]."""
        return replace(
            self,
            values=self.values[indices],
            labels=tuple(self.labels[i] for i in indices),
            tokens=self.tokens[indices],
            sample_ids=tuple(self.sample_ids[i] for i in indices),
            positions=self.positions[indices],
            weights=self.weights[indices],
            sample_labels=self.sample_labels and tuple(self.sample_labels[i] for i in indices),
        )


class ShardedStates:
    """The states of one layer, a shard at a time, for what is larger than memory; of parts, one after the other.

    background: False gives the states of the rule; True the background states, of which there may be none.

    Iterating gives one `LayerStates` per shard, and may be repeated: each time the shard is read again and its digest
    checked. Only the asked layer is held in memory. `len` is the number of states. progress: say how far each reading
    is.

    Raises:
        DataError: incomplete, or without any state; when iterating: a shard missing or altered, a number not finite.
        SettingError: the layer was not kept.
    """

    def __init__(self, folder: Path, layer: int, *, background: bool = False, progress: bool = False) -> None:
        self.manifest = open_manifest(folder)
        self._what = f"reading {folder}"
        self._progress = progress
        self.layer = layer
        self._parts = parts_in(folder)
        self._background = background
        for part in self._parts:
            manifest = open_manifest(part)
            if not manifest.complete:
                raise DataError(
                    f"{part}: holds {manifest.done:,} of {manifest.request.samples:,} samples; finish it with "
                    "`trimtab represent … --resume`"
                )
        if layer not in self.manifest.request.layers:
            kept = ", ".join(map(str, self.manifest.request.layers))
            raise SettingError(f"{folder}: layer {layer} was not kept; the layers there are {kept}")
        if not self.manifest.rows:
            rule = self.manifest.request.rule
            raise DataError(f"{folder}: holds no state at all; no answer had what the rule {rule!r} keeps")

    def __len__(self) -> int:
        return self.manifest.background if self._background else self.manifest.rows

    def __iter__(self) -> Iterator[LayerStates]:
        with shown(self._what, len(self), unit="state", show=self._progress) as advance:
            for states in self._shards():
                yield states
                advance(len(states.values))

    def _shards(self) -> Iterator[LayerStates]:
        for part in self._parts:
            manifest = open_manifest(part)
            stand_for = {} if self._background else manifest.stand_for
            for shard in manifest.shards:
                if not (shard.background if self._background else shard.rows):
                    continue
                try:
                    states = _read_shard(part, shard, self.layer, manifest, self._background, stand_for)
                except (LookupError, OSError, TypeError, ValueError, SafetensorError) as error:
                    raise DataError(
                        f"{part}: its manifest and its shards do not fit together; make them again"
                    ) from error
                yield replace(states, manifest=self.manifest)


def load_states(folder: Path, layer: int, *, progress: bool = False) -> LayerStates:
    """Every state of one layer, with each shard's digest checked. progress: say how far it is.

    Raises:
        DataError, SettingError: as `ShardedStates`.
    """
    return joined(ShardedStates(folder, layer, progress=progress))


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
        weights=np.concatenate([part.weights for part in parts]),
        sample_labels=parts[0].sample_labels and tuple(label for part in parts for label in part.sample_labels or ()),
    )


def load_background(folder: Path, layer: int) -> LayerStates | None:
    """The background states of one layer: a sample of the other positions of the same answers, see `background`.

    Their labels are the words that they predict, "" where that is none. None where the folder keeps none.

    Raises:
        DataError, SettingError: as `ShardedStates`.
    """
    blocks = ShardedStates(folder, layer, background=True)
    return joined(blocks) if len(blocks) else None


def verify_states(folder: Path) -> StatesManifest:
    """Check every file that the manifest names against its digest, finished or not.

    Raises:
        DataError: as `load_states`.
    """
    for part in parts_in(folder):
        for shard in open_manifest(part).shards:
            check_shard(part, shard)
    return open_manifest(folder)


def check_shard(folder: Path, shard: StatesShard) -> None:
    """Compare a shard's files with its digests, without holding them in memory.

    Raises:
        DataError: a file is missing or not what was written.
    """
    for name, expected in shard.sha256.items():
        try:
            with open(folder / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{folder}/{name}: is missing or unreadable; make the representations again") from error
        if found != expected:
            raise DataError(
                f"{folder}/{name}: is not what was written (its sha256 differs from the manifest's); "
                "make the representations again"
            )


def _read_shard(
    folder: Path,
    shard: StatesShard,
    layer: int,
    manifest: StatesManifest,
    background: bool,
    stand_for: Mapping[str, float],
) -> LayerStates:
    """The states of a shard: those of the rule, or the others. stand_for: see `StatesManifest`."""
    check_shard(folder, shard)
    where = folder / f"{shard.name}.safetensors"
    with safe_open(where, framework="numpy") as file:
        values, *columns = (file.get_tensor(name) for name in (f"layers.{layer}", *COLUMNS))
        apart = np.zeros(len(values), np.int64) if shard.background is None else file.get_tensor(BACKGROUND)
        there = set(file.keys())
        weights = file.get_tensor(WEIGHT) if WEIGHT in there else np.ones(len(values))
        own = file.get_tensor(SAMPLE_LABEL) if SAMPLE_LABEL in there else None
    if values.shape != (shard.rows + (shard.background or 0), manifest.request.model.hidden_size):
        raise DataError(f"{where}: layer {layer} has shape {values.shape}; make the representations again")
    if not np.isfinite(values).all():
        raise DataError(f"{where}: layer {layer} holds numbers that are not finite; try --dtype float32")
    samples, positions, tokens, labels = columns
    ranges = {
        "sample": (samples, shard.start, shard.stop),
        "label": (labels, 0, len(manifest.labels)),
        BACKGROUND: (apart, 0, np.iinfo(np.int64).max),
        WEIGHT: (weights, 0, np.inf),
        SAMPLE_LABEL: (labels if own is None else own, 0, len(manifest.labels)),
    }
    for name, (column, low, high) in ranges.items():
        if column.size and not low <= column.min() <= column.max() < high:  # a negative index would count from the end
            raise DataError(f"{where}: has a {name} outside {low} to {high - 1}; make the representations again")
    wanted = np.flatnonzero((apart > 0) == background)
    if len(wanted) != (shard.background if background else shard.rows):
        raise DataError(
            f"{where}: holds other numbers of states than the manifest says; make the representations again"
        )
    of_sample = samples[wanted] - shard.start
    words = tuple(manifest.labels[label] for label in labels[wanted])
    if background:  # all of an answer's share the positions that they speak for
        each = apart[wanted] / np.bincount(of_sample)[of_sample]
    else:
        each = np.array([stand_for.get(word, 1.0) for word in words], np.float64)
    ids = [json.loads(line)["id"] for line in (folder / f"{shard.name}.jsonl").read_bytes().splitlines()]
    return LayerStates(
        layer=layer,
        values=values if len(wanted) == len(values) else values[wanted],
        labels=words,
        tokens=tokens[wanted],
        sample_ids=tuple(ids[sample] for sample in of_sample),
        positions=positions[wanted],
        weights=weights[wanted] * each,
        manifest=manifest,
        sample_labels=None if own is None else tuple(manifest.labels[label] for label in own[wanted]),
    )
