"""The profiles that are measured: random numbers, since what an addition costs does not depend on what is added.

All of them steer the answer after the last decoder layer, which is where profiles of concepts are made most often (the
demo's as well); there they change no KV. Seeded, so that a second run finds its compiled graphs in vLLM's cache.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimtab.vectors import AlphaRange, ModelIdentity, Profile, SteeringVector, save_profile

__all__ = ["COARSE", "FINE_K20", "FINE_K64", "MANY", "mixed", "write_few", "write_many"]

COARSE, FINE_K20, FINE_K64 = "coarse", "fine-k20", "fine-k64"
MANY = 256
_FINE_OF_MANY = 16
_NORM = 0.05
"""Length of the vectors, small beside any state of the model."""


def write_few(folder: Path, model: Path) -> Path:
    """One profile of each kind: coarse, and fine with 20 and with 64 concepts."""
    return _write(folder, _few(ModelIdentity.of(model)))


def write_many(folder: Path, model: Path) -> Path:
    """256 profiles: the coarse one, 239 more coarse ones, and 16 fine ones with 20 concepts."""
    return _write(folder, _many(ModelIdentity.of(model)))


def mixed(requests: int) -> list[dict[str, object]]:
    """A steering for each of at most 32 requests, no two of the same profile or alpha; coarse and fine in turn."""
    return [
        {"profile": _fine(number // 2) if number % 2 else _coarse(number // 2), "alpha": 0.5 + number / 64}
        for number in range(requests)
    ]


def _few(model: ModelIdentity) -> Iterator[Profile]:
    rng = np.random.default_rng(0)
    yield _coarse_profile(COARSE, model, rng)
    yield _fine_profile(FINE_K20, 20, model, rng)
    yield _fine_profile(FINE_K64, 64, model, rng)


def _many(model: ModelIdentity) -> Iterator[Profile]:
    rng = np.random.default_rng(0)
    yield _coarse_profile(COARSE, model, rng)
    for number in range(_FINE_OF_MANY):
        yield _fine_profile(_fine(number), 20, model, rng)
    for number in range(MANY - 1 - _FINE_OF_MANY):
        yield _coarse_profile(_coarse(number), model, rng)


def _coarse(number: int) -> str:
    return f"coarse-{number}"


def _fine(number: int) -> str:
    return f"fine-{number}"


def _coarse_profile(name: str, model: ModelIdentity, rng: np.random.Generator) -> Profile:
    vector = SteeringVector(model.num_layers - 1, _rows(1, model.hidden_size, rng)[0])
    return Profile.coarse(name, [vector], model=model, alpha=AlphaRange())


def _fine_profile(name: str, concepts: int, model: ModelIdentity, rng: np.random.Generator) -> Profile:
    centroids, vectors = (_rows(concepts, model.hidden_size, rng) for _ in range(2))
    return Profile.fine(name, {model.num_layers - 1: (centroids, vectors)}, model=model, alpha=AlphaRange())


def _rows(rows: int, size: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    values = rng.standard_normal((rows, size))
    return np.asarray(_NORM * values / np.linalg.norm(values, axis=1, keepdims=True))


def _write(folder: Path, profiles: Iterator[Profile]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for profile in profiles:
        save_profile(profile, folder / profile.name)
    return folder
