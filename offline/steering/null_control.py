"""The null control: a steering with the strength of another and none of its meaning (docs/method.md §6)."""

from __future__ import annotations

import numpy as np

from trimtab.vectors import Profile, SteeringVector
from trimtab.vectors.arrays import Float32
from trimtab.vectors.profile import CoarseLayer

__all__ = ["random_control"]


def random_control(profile: Profile, name: str, seed: int) -> Profile:
    """The profile with every vector replaced by one of the same norm in a random direction.

    Everything else stays: layers, positions, gate, alphas and, in a fine profile, the centroids and the concepts that
    are not steered. Directions are uniform on the sphere and follow from the seed.
    """
    rng = np.random.default_rng(seed)
    manifest = profile.manifest
    provenance = manifest.provenance.model_copy(
        update={"method": "random directions of equal norm", "source": f"profile {profile.name}", "seed": seed}
    )
    description = f"null control of {profile.name}: random directions of the same norms"
    norms = {layer: norm.hidden for layer, norm in manifest.norms.items() if norm.hidden is not None}
    coarse: list[SteeringVector] = []
    fine: dict[int, tuple[Float32, Float32]] = {}
    for layer, tensors in profile.tensors.items():
        if isinstance(tensors, CoarseLayer):
            coarse.append(SteeringVector(layer, _turned(tensors.vector[None], rng)[0]))
        else:
            fine[layer] = tensors.centroids, _turned(tensors.vectors, rng)
    if coarse:
        return Profile.coarse(
            name, coarse, model=manifest.base_model, description=description, positions=manifest.positions,
            alpha=manifest.alpha, hidden_norms=norms, provenance=provenance,
        )  # fmt: skip
    return Profile.fine(
        name, fine, model=manifest.base_model, description=description, positions=manifest.positions,
        gate=manifest.gate, alpha=manifest.alpha, hidden_norms=norms, provenance=provenance,
    )  # fmt: skip


def _turned(vectors: Float32, rng: np.random.Generator) -> Float32:
    """Vectors [K, D] of the same norms in random directions; zero stays zero."""
    directions = rng.standard_normal(vectors.shape)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    turned: Float32 = (directions * norms).astype(np.float32)
    return turned
