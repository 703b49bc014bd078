"""What is added: for the first, a middle and the last layer a coarse profile and a fine one, made to show.

A fine profile's centroids are states of the model itself, far enough apart that no rounding decides which is nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.architectures.parts import LAYERS
from tests.engine.asking import Ask
from tests.engine.reference import Reference
from trimtab.vectors import AlphaRange, Profile, Registry, SteeringVector, save_profile

__all__ = ["ALPHA", "AT", "make_profiles"]

Float32 = npt.NDArray[np.float32]

AT = (0, LAYERS // 2, LAYERS - 1)
ALPHA = -0.7
CONCEPTS = 4
_RANGE = AlphaRange(default=1.0, min=-2.0, max=2.0)


def make_profiles(reference: Reference, asks: Sequence[Ask], folder: Path) -> Registry:
    """Write `coarse-<layer>` and `fine-<layer>` for each layer of `AT`, which steer all positions, and load them."""
    rng = np.random.default_rng(0)
    identity = reference.reader.identity
    states = [reference.stream(ask, [0], AT) for ask in asks]
    for layer in AT:
        # A model of several streams has several rows per position; its engine refuses to start.
        rows = np.concatenate([found[layer].reshape(-1, identity.hidden_size) for found in states])
        size = float(np.sqrt((rows**2).mean()))
        centroids = rows[np.linspace(0, len(rows) - 1, CONCEPTS).astype(int)]

        def drawn(*shape: int, size: float = size) -> Float32:
            return (size * rng.normal(size=shape)).astype(np.float32)

        coarse = [SteeringVector(layer, drawn(rows.shape[1]))]
        fine = {layer: (centroids, drawn(*centroids.shape))}
        for profile in (
            Profile.coarse(f"coarse-{layer}", coarse, model=identity, positions="all", alpha=_RANGE),
            Profile.fine(f"fine-{layer}", fine, model=identity, positions="all", alpha=_RANGE),
        ):
            save_profile(profile, folder / profile.name)
    return Registry.open(folder)
