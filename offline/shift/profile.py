"""A steering profile out of a shift: a model toward its fine-tune, or the fine-tune back (docs/method.md §3 and 4)."""

from __future__ import annotations

import numpy as np

from trimtab.vectors import AlphaRange, ConceptDictionary, Profile, SteeringVector
from trimtab.vectors.manifest import Positions

from ..concepts.methods import check_partition
from ..states.paired import Pairs
from ..steering.gates import GatedLayer
from ..steering.words import typical_norm
from .deltas import shifts_of

__all__ = ["profile_of_shift"]


def profile_of_shift(
    name: str,
    pairs: Pairs,
    dictionary: ConceptDictionary | None = None,
    *,
    positions: Positions = "answer",
    alpha: AlphaRange | None = None,
    description: str = "",
) -> Profile:
    """Steers the model of `pairs.a` toward that of `pairs.b`; for the way back give `pairs.swapped()`.

    Coarse without a dictionary: the mean of all δ. Fine with one, of a's model: Δ_k, added where concept k is nearest;
    the manifest then says which share of the states of `pairs.a` each concept is the nearest to.

    Raises:
        SettingError: a dictionary of another model or layer, or one whose concepts are no centres.
    """
    request = pairs.a.manifest.request
    provenance = pairs.a.manifest.provenance("mean shift", None, {"pairs": len(pairs)}).model_copy(
        update={"source": f"weights {pairs.b.manifest.request.model.fingerprint}"}
    )
    norms = {pairs.a.layer: typical_norm(pairs.a)}
    if dictionary is None:
        return Profile.coarse(
            name,
            [SteeringVector(pairs.a.layer, pairs.shifts.mean(axis=0))],
            model=request.model,
            description=description or "toward the other model, one vector (the mean shift of all states)",
            positions=positions,
            alpha=alpha,
            hidden_norms=norms,
            provenance=provenance,
        )
    check_partition(dictionary)
    shifts = shifts_of(pairs, dictionary)
    gated = GatedLayer(dictionary.centroids, shifts.deltas.astype(np.float32), (None,) * len(shifts.deltas))
    method = f"mean shift of each concept, {dictionary.method}, K = {len(dictionary.labels)}"
    return Profile.fine(
        name,
        {pairs.a.layer: (dictionary.centroids, shifts.deltas)},
        model=request.model,
        description=description or "toward the other model, each concept by its own mean shift",
        positions=positions,
        alpha=alpha,
        hidden_norms=norms,
        provenance=provenance.model_copy(update={"method": method, "seed": dictionary.provenance.seed}),
        shares={pairs.a.layer: gated.shares(pairs.a.values, pairs.a.weights)},
    )
