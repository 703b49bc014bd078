"""Profiles of every kind, made of the model's own activations and as large as these: swapped ones must show.

A strength of 1 adds as much as the stream is long.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from examples.tinyworld.ask import ASK, CAPTION_PROMPT, caption
from examples.tinyworld.draw import draw
from tests.conformance.formula import Bools, Float64, Formula
from tests.engine.asking import scene_of
from trimtab.offline.models.reader import Question
from trimtab.vectors import AlphaRange, Gate, Profile, Registry, SteeringVector, save_profile
from trimtab.vectors.manifest import Positions

_RANGE = AlphaRange(default=1.0, min=-4.0, max=4.0)
_CONCEPTS = 8
_Place = Literal["image", "text", "answer"]

# name → layers, positions. After the last block (5) only answers are steered: nothing attends to what is added there.
_COARSE: dict[str, tuple[tuple[int, ...], Positions]] = {
    "coarse-answer-early": ((1,), "answer"),
    "coarse-answer-late": ((5,), "answer"),
    "coarse-answer-twice": ((1, 3), "answer"),
    "coarse-all-early": ((1,), "all"),
    "coarse-all-late": ((5,), "all"),
    "coarse-prompt": ((1,), "prompt"),
    "coarse-image": ((1, 3), "image"),
    "coarse-text": ((1,), "text"),
}
# name → layers, positions, scope, limited distance. "own": each concept has a limit, but for one.
_FINE: dict[str, tuple[tuple[int, ...], Positions, Literal["token", "sequence"], str | None]] = {
    "fine-answer-middle": ((3,), "answer", "token", None),
    "fine-answer-late": ((5,), "answer", "token", None),
    "fine-answer-near": ((5,), "answer", "token", "euclidean"),
    "fine-answer-own": ((1, 5), "answer", "token", "euclidean"),
    "fine-all-own": ((3,), "all", "token", "cosine"),
    "fine-all": ((1, 5), "all", "token", None),
    "fine-prompt": ((1,), "prompt", "token", None),
    "fine-image-near": ((1,), "image", "token", "euclidean"),
    "fine-text-near": ((1,), "text", "token", "cosine"),
    "fine-sequence": ((3,), "answer", "sequence", None),
    "fine-sequence-late": ((5,), "answer", "sequence", None),
    "fine-sequence-near": ((1, 5), "answer", "sequence", "cosine"),
    "fine-sequence-own": ((3, 5), "answer", "sequence", "euclidean"),
}


def make_profiles(formula: Formula, folder: Path, seed: int) -> Registry:
    """Write them to sub-folders of `folder`."""
    activations = _activations(formula)
    for profile in _profiles(formula, activations, seed):
        save_profile(profile, folder / profile.name)
    return Registry.open(folder)


def _profiles(formula: Formula, activations: dict[tuple[_Place, int], Float64], seed: int) -> Iterator[Profile]:
    model = formula.reader.identity
    for number, (name, (layers, positions)) in enumerate(_COARSE.items()):
        vectors = []
        for layer in layers:
            rows = activations[_place(positions), layer]
            centroids = _centroids(rows, seed)
            far = np.argsort(np.linalg.norm(centroids - centroids[number % _CONCEPTS], axis=1))[-1 - number % 3]
            towards = centroids[far] - centroids[number % _CONCEPTS]
            vectors.append(
                SteeringVector(layer, (towards * _length(rows) / np.linalg.norm(towards)).astype(np.float32))
            )
        yield Profile.coarse(name, vectors, model=model, positions=positions, alpha=_RANGE)
    for number, (name, (layers, positions, scope, limited)) in enumerate(_FINE.items()):
        parts, limit, own = {}, None, {}
        for layer in layers:
            rows = activations[_place(positions), layer]
            centroids = _centroids(rows, seed + number)
            towards = np.roll(centroids, 1 + number % 3, axis=0) - centroids
            towards *= _length(rows) / np.linalg.norm(towards, axis=1).mean()
            parts[layer] = (centroids.astype(np.float32), towards.astype(np.float32))
            if limited is not None:
                apart, nearest = _distances(rows, centroids, limited)
                limit = float(np.quantile(apart, 0.9))
                limits = [float(np.quantile(apart[nearest == k], 0.7 + 0.05 * (k % 5))) for k in range(_CONCEPTS)]
                own[layer] = (*limits[: number % _CONCEPTS], None, *limits[number % _CONCEPTS + 1 :])
        gate = Gate(
            scope=scope,
            metric="cosine" if limited == "cosine" else "euclidean",
            max_distance=limit,
            limits=own if name.endswith("-own") else None,
        )
        yield Profile.fine(name, parts, model=model, positions=positions, gate=gate, alpha=_RANGE)


def _activations(formula: Formula) -> dict[tuple[_Place, int], Float64]:
    """Streams [n, D] of the positions of pictures, of prompts' words and of answers, by place and layer."""
    found: dict[tuple[_Place, int], list[Float64]] = {}
    for seed in range(24):
        scene = scene_of(seed)
        question = ASK["other"](scene, random.Random(seed)).text if seed % 2 else CAPTION_PROMPT
        asked = formula.reader.encode([Question(question, draw(scene))])["input_ids"][0].tolist()
        tokens = [*asked, *formula.reader.tokenizer.encode(caption(scene), add_special_tokens=False)]
        picture = np.array(tokens) == formula.picture_token
        answer = np.arange(len(tokens)) >= len(asked) - 1
        places: dict[_Place, Bools] = {"image": picture, "text": ~picture & ~answer, "answer": answer}
        for layer, stream in formula.run(tokens, len(asked), [seed]).streams.items():
            for place, mask in places.items():
                found.setdefault((place, layer), []).append(stream[mask])
    return {key: np.concatenate(streams) for key, streams in found.items()}


def _place(positions: Positions) -> _Place:
    return {"image": "image", "prompt": "text", "text": "text"}.get(positions, "answer")  # type: ignore[return-value]


def _centroids(rows: Float64, seed: int) -> Float64:
    found: Float64 = KMeans(_CONCEPTS, n_init=1, random_state=seed).fit(rows).cluster_centers_
    return found


def _length(rows: Float64) -> float:
    return float(np.median(np.linalg.norm(rows, axis=1)))


def _distances(rows: Float64, centroids: Float64, metric: str) -> tuple[Float64, npt.NDArray[np.int64]]:
    """How far each row lies from its nearest centroid, and which that is."""
    distances = np.linalg.norm(rows[:, None] - centroids[None], axis=2)
    nearest = distances.argmin(axis=1)
    if metric == "euclidean":
        return distances.min(axis=1), nearest
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(centroids[nearest], axis=1)
    return 1 - (rows * centroids[nearest]).sum(axis=1) / lengths, nearest
