"""Other labels for states that are there already: the truth, a column of the samples, or what a judge says.

A judge's file names samples by id and says one word of each: JSON lines with the keys id and label, or a CSV file with
these columns. Samples that it does not name are left out, so it can say "these did it, those did not" of a few.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from trimtab.vectors.errors import printable
from trimtab.vectors.states import (
    BACKGROUND,
    SAMPLE_LABEL,
    WEIGHT,
    SkippedSample,
    StatesManifest,
    write_shard,
    write_states_manifest,
)

from ..errors import DataError, SettingError
from ..progress import progress as shown
from .labels import ANSWER, check_labels, label_of, tidy
from .lines import csv_rows, json_rows, read_text
from .parts import holds_states, parts_in
from .samples import plain, read_samples
from .store import LayerStates, check_shard, open_manifest

__all__ = ["Labels", "labelled", "labels_of_file", "labels_of_samples", "relabel"]


@dataclass(frozen=True)
class Labels:
    """A label by sample id. by: how manifests say where the labels come from."""

    by: str
    of: Mapping[str, str]


def labels_of_samples(data: Path, by: str, made_from: str) -> Labels:
    """The truth, the type or a column of a samples file. made_from: the digest of the file that the states are of.

    Raises:
        DataError: another file, or no sample has such a label. SettingError: the model's own answers.
    """
    if by == ANSWER:
        raise SettingError("the model's own words come from the rule; use `trimtab represent --label answer`")
    file = read_samples(data)
    if file.digest != made_from:
        raise DataError(f"{data}: is not the samples file that the states were made from; give that one")
    check_labels(file.samples, by, data)
    return Labels(by, {one.id: label for one in file.samples if (label := label_of(one, by))})


def labels_of_file(path: Path) -> Labels:
    """What a judge's file says: JSON lines with id and label, or CSV with these columns (told by the ending .csv).

    Raises:
        DataError: it cannot be read, a line lacks an id or a label, or two lines name one sample; names the line.
    """
    text, digest = read_text(path, "a file of ids and labels")
    if path.suffix.lower() == ".csv":
        rows = csv_rows(path, text)
    else:
        expected, otherwise = "an object with the keys id and label", "; a CSV file must be called .csv"
        rows = json_rows(path, text, expected, otherwise)
    of: dict[str, str] = {}
    for where, row in rows:
        identifier, label = (plain(row.get(key)) or "" for key in ("id", "label"))
        if not identifier or not tidy(label):
            raise DataError(f"{where}: needs an id and a label, by these names; leave out samples that have no label")
        if identifier in of:
            raise DataError(f"{where}: names the sample {identifier!r} for the second time; keep one line per sample")
        of[identifier] = tidy(label)
    if not of:
        raise DataError(f"{path}: names no sample; expected a line with an id and a label for each")
    return Labels(f"{printable(path.name)} {digest}", of)


def labelled(states: LayerStates, labels: Labels) -> LayerStates:
    """The states of the samples that have a label, each with the label of its sample.

    Raises:
        DataError: no sample of the states has a label.
    """
    kept = states.at(np.array([i for i, one in enumerate(states.sample_ids) if one in labels.of], np.int64))
    _check_some(kept.sample_ids, states.sample_ids, labels)
    request = states.manifest.request.model_copy(update={"labels": labels.by})
    return replace(
        kept,
        labels=tuple(labels.of[one] for one in kept.sample_ids),
        manifest=states.manifest.model_copy(update={"request": request}),
    )


def relabel(folder: Path, labels: Labels, out: Path, *, progress: bool = False) -> StatesManifest:
    """Write a folder of the same states with other labels; a shard at a time is in memory. Parts stay parts.

    Samples without a label are left out, and stand in the manifest as skipped. out: a new folder.

    Raises:
        DataError: `folder` is unfinished or damaged, `out` exists, or no sample has a label.
    """
    samples = open_manifest(folder).request.samples
    parts = {part: open_manifest(part) for part in parts_in(folder)}
    for part, manifest in parts.items():
        if not manifest.complete:
            raise DataError(f"{part}: is not finished; finish it with `trimtab represent … --resume`")
    if holds_states(out):
        raise DataError(f"{out}: exists already; choose another folder")
    made: dict[Path, StatesManifest] = {}
    seen: list[str] = []
    with shown("relabel", samples, show=progress) as advance:
        for part, manifest in parts.items():
            into = out if part == folder else out / part.name
            try:
                into.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"{into}: cannot be written ({error.strerror})") from error
            made[into] = _with_labels(part, manifest, labels, into, seen, advance)
    _check_some([one for one in seen if one in labels.of], seen, labels)
    for into, manifest in made.items():
        write_states_manifest(into, manifest)
    return open_manifest(out)


def _with_labels(
    folder: Path, manifest: StatesManifest, labels: Labels, out: Path, seen: list[str], advance: Callable[[int], None]
) -> StatesManifest:
    """Write the shards of a folder with other labels; the manifest that names them. seen: gets the samples' ids."""
    vocabulary: dict[str, int] = {}
    shards = []
    for shard in manifest.shards:
        check_shard(folder, shard)
        answers = (folder / f"{shard.name}.jsonl").read_bytes()
        ids = [json.loads(line)["id"] for line in answers.splitlines()]
        seen += ids
        tensors = load((folder / f"{shard.name}.safetensors").read_bytes())
        kept = _kept(tensors, ids, shard.start, manifest, labels, vocabulary)
        skipped = {skip.id for skip in shard.skipped}
        reason = "no label: it is not among those that are labelled"
        left = (SkippedSample(id=one, reason=reason) for one in ids if one not in labels.of and one not in skipped)
        background = int(np.count_nonzero(kept.get(BACKGROUND, 0)))
        shards.append(
            shard.model_copy(
                update={
                    "rows": len(kept["sample"]) - background,
                    "background": None if shard.background is None else background,
                    "left_out": None,
                    "sha256": write_shard(out, shard.name, kept, answers),
                    "skipped": (*shard.skipped, *left),
                }
            )
        )
        advance(shard.stop - shard.start)
    return manifest.model_copy(
        update={
            "request": manifest.request.model_copy(update={"labels": labels.by}),
            "labels": tuple(vocabulary),
            "shards": tuple(shards),
        }
    )


def _kept(
    tensors: Mapping[str, npt.NDArray[Any]],
    ids: list[str],
    start: int,
    manifest: StatesManifest,
    labels: Labels,
    vocabulary: dict[str, int],
) -> dict[str, npt.NDArray[Any]]:
    """The rows of a shard whose samples have a label, with its number; background states keep the word of their own.

    What the states stood for by their old labels becomes their weight.
    """
    of_rows = [ids[sample - start] for sample in tensors["sample"]]
    rows = np.array([i for i, one in enumerate(of_rows) if one in labels.of], np.int64)
    kept = {name: np.ascontiguousarray(tensor[rows]) for name, tensor in tensors.items()}
    background = kept.get(BACKGROUND, np.zeros(len(rows), np.int64))
    before = [manifest.labels[own] for own in kept["label"]]
    if stand_for := manifest.stand_for:
        each = [1.0 if other else stand_for.get(word, 1.0) for word, other in zip(before, background, strict=True)]
        kept[WEIGHT] = kept.get(WEIGHT, np.ones(len(rows))) * np.array(each, np.float64)
    samples = [labels.of[of_rows[row]] for row in rows]
    words = [word if other else own for word, own, other in zip(before, samples, background, strict=True)]
    for name, texts in {"label": words, SAMPLE_LABEL: samples}.items():
        kept[name] = np.array([vocabulary.setdefault(text, len(vocabulary)) for text in texts], np.int64)
    return kept


def _check_some(found: tuple[str, ...] | list[str], asked: tuple[str, ...] | list[str], labels: Labels) -> None:
    if not found:
        ours, theirs = next(iter(asked), "?"), next(iter(labels.of))
        raise DataError(
            f"none of the {len(labels.of):,} labelled samples is among the states; theirs are called like {ours!r}, "
            f"the labelled ones like {theirs!r}"
        )
