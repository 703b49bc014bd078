"""What the laws of steering are tried on: profiles of every kind near the model's own stream, and prompts."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tests.engine.asking import Ask, caption, questions
from tests.engine.reference import Reference, distance_of
from trimtab.vectors import AlphaRange, Gate, Profile, SteeringVector
from trimtab.vectors.manifest import Positions

POSITIONS: tuple[Positions, ...] = ("answer", "prompt", "all", "image", "text")
EARLY, MIDDLE, LATE, LAST = 1, 2, 3, 5
LAYERS = (EARLY, MIDDLE, LATE, LAST)
SIZES = (1, 20, 64, 256)
METRICS = ("euclidean", "cosine")
DOSE = 0.3  # ‖v‖ / ‖h‖: it shows in every log-probability, and the stream stays near the centroids
CLOSE = 1e-4

PICTURE = caption(3, full=True, ignore_eos=True, max_tokens=4)
TEXT = Ask(
    "is there a red ball? are there two blue stars? who is there? " * 3, full=True, ignore_eos=True, max_tokens=4
)

_BOTH_WAYS = AlphaRange(default=1.0, min=-2.0, max=2.0)


def prompt(length: int, seed: int, *, scene: int | None = None) -> Ask:
    """A prompt of `length` positions, its first 64 a picture if there is one."""
    words = np.random.default_rng(seed).integers(300, 600, length).tolist()
    ids = words if scene is None else [4, *words[64:]]
    return Ask(ids=tuple(ids), scene=scene, full=True, ignore_eos=True, max_tokens=4)


def two_pictures() -> list[Ask]:
    """Side by side, and with words between them."""
    return [
        replace(PICTURE, text="what is red?", scenes=(8,)),
        replace(PICTURE, ids=(418, 324, 4, 495, 594, 473, 4, 601, 405), scene=5, scenes=(6,)),
    ]


class Streams:
    """Unsteered rows of the stream [N, D] by layer: some to put centroids near, others to measure distances on."""

    def __init__(self, reference: Reference) -> None:
        asks = [*(caption(seed) for seed in (11, 12, 13)), *questions("number", 2), *questions("other", 2), TEXT]
        tokens = [301, 594, 473, 601, 405]
        found = [reference.stream(ask, tokens, LAYERS) for ask in asks]
        measured = [reference.stream(ask, tokens, LAYERS) for ask in (PICTURE, TEXT)]
        self.rows = {layer: np.concatenate([one[layer] for one in found]) for layer in LAYERS}
        self.measured = {layer: np.concatenate([one[layer] for one in measured]) for layer in LAYERS}
        self.ends = {layer: np.concatenate([one[layer][-len(tokens) :] for one in found]) for layer in LAYERS}

    def size(self, layer: int) -> float:
        return float(np.median(np.linalg.norm(self.rows[layer], axis=1)))


def profiles(reference: Reference) -> Iterator[Profile]:
    """All that the laws use, by names that say what they are."""
    streams = Streams(reference)
    model = reference.reader.identity

    def coarse(name: str, layers: Sequence[int], at: Positions, dose: float = DOSE) -> Profile:
        vectors = [SteeringVector(layer, _vectors(name, streams, layer, 1, dose)[0]) for layer in layers]
        return Profile.coarse(name, vectors, model=model, positions=at, alpha=_BOTH_WAYS)

    def fine(name: str, layers: Sequence[int], at: Positions, k: int = 20, gate: Gate | None = None) -> Profile:
        rows = {
            layer: (_centroids(name, streams, layer, k, at), _vectors(name, streams, layer, k, DOSE))
            for layer in layers
        }
        return Profile.fine(name, rows, model=model, positions=at, gate=gate, alpha=_BOTH_WAYS)

    def limited(name: str, layers: Sequence[int], at: Positions, k: int, metric: str, scope: str = "token") -> Profile:
        open_to_all = fine(name, layers, at, k)
        among = streams.ends if at == "answer" else streams.measured
        nearest = {layer: _nearest(open_to_all, layer, among[layer], metric) for layer in layers}
        limit = _limit([far for layer in layers for far, _ in nearest[layer]], scope)
        gate: dict[str, object] = {"scope": scope, "metric": metric, "max_distance": limit}
        if name.startswith("own"):
            gate["limits"] = {
                layer: [
                    _limit([far for far, which in nearest[layer] if which == concept], scope) for concept in range(k)
                ]
                for layer in layers
            }
        return fine(name, layers, at, k, Gate.model_validate(gate))

    for at in POSITIONS:
        for where, layer in (("middle", MIDDLE), ("last", LAST)):
            yield coarse(f"coarse-{where}-{at}", [layer], at)
            yield fine(f"fine-{where}-{at}", [layer], at)
    for metric in METRICS:
        for k in SIZES:
            yield limited(f"gate-{metric}-{k}", [EARLY, LATE], "all", k, metric)
        yield limited(f"once-{metric}", [EARLY, MIDDLE, LAST], "answer", 20, metric, "sequence")
        yield limited(f"own-{metric}", [EARLY, LATE], "all", 20, metric)
        yield limited(f"own-once-{metric}", [EARLY, LAST], "answer", 3, metric, "sequence")
    yield fine("once", [EARLY, LATE], "answer", 20, Gate(scope="sequence"))
    yield fine("once-last", [LAST], "answer", 64, Gate(scope="sequence"))
    first, second = coarse("a", [MIDDLE], "all"), coarse("b", [MIDDLE], "all")
    both = SteeringVector(MIDDLE, _vector(first) + _vector(second))
    yield from (first, second, Profile.coarse("sum", [both], model=model, positions="all", alpha=_BOTH_WAYS))
    yield coarse("large", [MIDDLE], "all", 2.0)
    yield coarse("many", LAYERS, "all", DOSE / 2)
    yield fine("follows", [MIDDLE, LATE], "all", 64)


def replacement(profile: Profile) -> Profile:
    """A coarse profile of the same name and other bytes."""
    vectors = [SteeringVector(layer, -tensor.named["vector"]) for layer, tensor in profile.tensors.items()]
    manifest = profile.manifest
    return Profile.coarse(
        profile.name, vectors, model=manifest.base_model, positions=manifest.positions, alpha=_BOTH_WAYS
    )


def _vector(profile: Profile) -> npt.NDArray[np.float32]:
    return profile.tensors[MIDDLE].named["vector"]


def _rng(name: str, layer: int) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{name} {layer}".encode()))


def _vectors(name: str, streams: Streams, layer: int, count: int, dose: float) -> npt.NDArray[np.float32]:
    found = _rng(name, layer).normal(size=(count, streams.rows[layer].shape[1]))
    found *= dose * streams.size(layer) / np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float32)


def _centroids(name: str, streams: Streams, layer: int, count: int, at: Positions) -> npt.NDArray[np.float32]:
    """Near rows of the stream; near those that write answers where only answers are steered."""
    among = streams.ends[layer] if at == "answer" else streams.rows[layer]
    rng = _rng(name, layer)
    picked = among[rng.choice(len(among), count, replace=count > len(among))]
    spread = 0.2 * streams.size(layer) / np.sqrt(among.shape[1])
    found: npt.NDArray[np.float32] = (picked + rng.normal(size=picked.shape) * spread).astype(np.float32)
    return found


def _nearest(profile: Profile, layer: int, among: npt.NDArray[np.float32], metric: str) -> list[tuple[float, int]]:
    """The distance of each row to its nearest centroid, and which that is."""
    centroids = profile.tensors[layer].named["centroids"].astype(np.float64)
    rows = among.astype(np.float64)
    nearest = [int(np.argmin(np.linalg.norm(centroids - row, axis=1))) for row in rows]
    return [(distance_of(metric, centroids[which], row), which) for which, row in zip(nearest, rows, strict=True)]


def _limit(distances: list[float], scope: str) -> float | None:
    """A limit that about half of the distances keep to, and none of them is near; None for fewer than ten."""
    if len(distances) < 10:
        return None
    return _in_the_widest_gap(distances, *((0.4, 0.6) if scope == "token" else (0.7, 0.9)))


def _in_the_widest_gap(distances: list[float], low: float, high: float) -> float:
    """A limit that about that share of the distances keeps to, and none of them is near."""
    ordered = np.sort(distances)[int(low * len(distances)) : int(high * len(distances))]
    widest = int(np.argmax(np.diff(ordered)))
    return float(ordered[widest : widest + 2].mean())
