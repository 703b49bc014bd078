"""Profiles of every kind, made of the model's own activations and as large as these: swapped ones must show.

A strength of 1 adds as much as the stream is long.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
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
# name → layers, positions, scope, limited distance.
_FINE: dict[str, tuple[tuple[int, ...], Positions, Literal["token", "sequence"], str | None]] = {
    "fine-answer-middle": ((3,), "answer", "token", None),
    "fine-answer-late": ((5,), "answer", "token", None),
    "fine-answer-near": ((5,), "answer", "token", "euclidean"),
    "fine-all": ((1, 5), "all", "token", None),
    "fine-prompt": ((1,), "prompt", "token", None),
    "fine-image-near": ((1,), "image", "token", "euclidean"),
    "fine-text-near": ((1,), "text", "token", "cosine"),
    "fine-sequence": ((3,), "answer", "sequence", None),
    "fine-sequence-late": ((5,), "answer", "sequence", None),
    "fine-sequence-near": ((1, 5), "answer", "sequence", "cosine"),
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
        parts, limit = {}, None
        for layer in layers:
            rows = activations[_place(positions), layer]
            centroids = _centroids(rows, seed + number)
            towards = np.roll(centroids, 1 + number % 3, axis=0) - centroids
            towards *= _length(rows) / np.linalg.norm(towards, axis=1).mean()
            parts[layer] = (centroids.astype(np.float32), towards.astype(np.float32))
            limit = None if limited is None else _typical_distance(rows, centroids, limited)
        gate = Gate(scope=scope, metric="cosine" if limited == "cosine" else "euclidean", max_distance=limit)
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


def _typical_distance(rows: Float64, centroids: Float64, metric: str) -> float:
    """Nine in ten rows lie nearer to their centroid."""
    distances = np.linalg.norm(rows[:, None] - centroids[None], axis=2)
    nearest = centroids[distances.argmin(axis=1)]
    if metric == "euclidean":
        return float(np.quantile(distances.min(axis=1), 0.9))
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(nearest, axis=1)
    return float(np.quantile(1 - (rows * nearest).sum(axis=1) / lengths, 0.9))
