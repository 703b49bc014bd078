"""What a concept looks like: the samples that activate it most, as thumbnails (docs/method.md §2, image grounding)."""

from __future__ import annotations

import hashlib
import heapq
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path

import numpy as np
from PIL import Image

from trimtab.vectors import ConceptDictionary

from ..files import write_whole
from ..images import UnreadableImage, open_image
from ..progress import tracked
from ..states.store import LayerStates
from .methods import activations

__all__ = ["thumbnails", "top_samples"]

LARGEST_SIDE = 96
"""Pixels."""


def top_samples(dictionary: ConceptDictionary, blocks: Iterable[LayerStates], count: int) -> list[tuple[str, ...]]:
    """For each concept the ids of the samples that activate it most, best first.

    A sample counts once, by its best state; on a tie the earlier sample comes first.

    blocks: such as `ShardedStates`, or a list of one `LayerStates`. A block must hold all states of its samples.
    """
    best: list[list[tuple[float, str]]] = [[] for _ in dictionary.labels]
    for block in blocks:
        numbers = {sample: number for number, sample in enumerate(dict.fromkeys(block.sample_ids))}
        scores = np.full((len(numbers), len(best)), -np.inf)
        np.maximum.at(scores, [numbers[sample] for sample in block.sample_ids], activations(dictionary, block.values))
        for concept, found in enumerate(best):
            candidates = chain(found, zip(scores[:, concept].tolist(), numbers, strict=True))
            best[concept] = heapq.nlargest(count, candidates, key=itemgetter(0))
    return [tuple(sample for _, sample in found) for found in best]


def thumbnails(
    samples: Sequence[Sequence[str]], images: Mapping[str, Path | None], folder: Path, *, progress: bool = False
) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """Write a PNG of at most 96 px for each sample's picture; their names for each concept, and what was left out.

    samples: ids for each concept. images: the picture of each sample. A file is named after its content, so
    equal pictures are one file. Left out, by id and reason: samples without a picture, or with a broken one.
    """
    written: dict[str, str] = {}
    left_out: dict[str, str] = {}
    folder.mkdir(parents=True, exist_ok=True)
    every = dict.fromkeys(one for concept in samples for one in concept)
    for sample in tracked("pictures", every, len(every), unit="picture", show=progress):
        path = images.get(sample)
        if path is None:
            left_out[sample] = "no picture"
            continue
        try:
            content = _thumbnail(open_image(path))
        except UnreadableImage as error:
            left_out[sample] = str(error)
            continue
        written[sample] = f"{hashlib.sha256(content).hexdigest()[:16]}.png"
        write_whole(folder / written[sample], content)
    return [tuple(dict.fromkeys(written[one] for one in concept if one in written)) for concept in samples], left_out


def _thumbnail(image: Image.Image) -> bytes:
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()
