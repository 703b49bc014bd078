"""What a fine-tune did to the concepts of a model (docs/method.md §3).

Each concept k moves by Δ_k, the mean of δ_m = b_m - a_m over the samples that activate it most in the original model.
u_k + α Δ_k is then compared with the fine-tune's concept that u_k matches. With K-Means and α = 1 the sum *is* the mean
of b over these samples, so a high recovery on the same samples proves little; `controls.py` measures it on others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.vectors import ConceptDictionary

from ..concepts.methods import strongest
from ..errors import SettingError
from ..states.paired import Pairs
from ..states.store import LayerStates
from .matching import cosines, match_concepts, unit

__all__ = ["ConceptShifts", "Recovered", "check_dictionary", "recovered", "shifts_of"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ConceptShifts:
    """How the K concepts of a dictionary moved.

    concepts: float64 [K, D], the u_k. deltas: float64 [K, D], the Δ_k. counts: int64 [K], the states of each concept.
    consistency: float64 [K], mean cos(δ_m, Δ_k). pairwise: float64 [K], mean cos(δ_m, δ_n) over m ≠ n, and 1 for a
    single state. A concept without states has zeros. The cosine of a state that did not move is 0.
    """

    concepts: Float64
    deltas: Float64
    counts: Int64
    consistency: Float64
    pairwise: Float64

    @property
    def magnitude(self) -> Float64:
        """‖Δ_k‖, float64 [K], in units of the residual stream."""
        found: Float64 = np.linalg.norm(self.deltas, axis=1)
        return found

    def shifted(self, alpha: float = 1.0) -> Float64:
        """u_k + α Δ_k, float64 [K, D]."""
        return self.concepts + alpha * self.deltas


@dataclass(frozen=True, eq=False)
class Recovered:
    """The concepts against their matches b*, before (u) and after (u + α Δ).

    match: int64 [K]. before, after: float64 [K], cosines. recovery: float64 [K], (after - before) / before, or nan
    if before ≤ 0, where the ratio has no meaning.
    """

    match: Int64
    before: Float64
    after: Float64
    recovery: Float64


def shifts_of(pairs: Pairs, dictionary: ConceptDictionary) -> ConceptShifts:
    """Δ_k and both consistencies; A_k by the strongest activation of a's states.

    Raises:
        SettingError: a dictionary of another model or layer than a's.
    """
    check_dictionary(dictionary, pairs.a)
    k = len(dictionary.labels)
    assigned = strongest(dictionary, pairs.a.values)
    shifts = pairs.shifts
    deltas = np.zeros((k, shifts.shape[1]))
    consistency, pairwise = np.zeros(k), np.zeros(k)
    for concept in range(k):
        members = shifts[assigned == concept]
        if len(members):
            deltas[concept] = members.mean(axis=0)
            consistency[concept] = cosines(members, deltas[concept : concept + 1]).mean()
            pairwise[concept] = _mean_pairwise_cosine(members)
    counts = np.bincount(assigned, minlength=k).astype(np.int64)
    return ConceptShifts(dictionary.centroids.astype(np.float64), deltas, counts, consistency, pairwise)


def recovered(shifts: ConceptShifts, target: ConceptDictionary, alpha: float = 1.0) -> Recovered:
    """How much nearer the shift brings the concepts to their matches in the fine-tune's dictionary `target`."""
    match = match_concepts(shifts.concepts, target.centroids)
    every = np.arange(len(match))
    before = cosines(shifts.concepts, target.centroids)[every, match]
    after = cosines(shifts.shifted(alpha), target.centroids)[every, match]
    recovery = np.full(len(match), np.nan)
    np.divide(after - before, before, out=recovery, where=before > 0)
    return Recovered(match, before, after, recovery)


def check_dictionary(dictionary: ConceptDictionary, states: LayerStates) -> None:
    """Passes when a dictionary was made of these states' model and layer.

    Raises:
        SettingError: it was not.
    """
    model = states.manifest.request.model
    if dictionary.layer != states.layer or dictionary.model != model:
        raise SettingError(
            f"the dictionary is of layer {dictionary.layer} of {dictionary.model.architecture} with weights "
            f"{dictionary.model.fingerprint}, the states are of layer {states.layer} of {model.architecture} with "
            f"weights {model.fingerprint}; both must be of one model and layer"
        )


def _mean_pairwise_cosine(vectors: Float64) -> float:
    """Mean cos(v_m, v_n) over m ≠ n, from ‖Σ v/‖v‖‖², without an N × N matrix; 1 for a single vector."""
    count = len(vectors)
    if count == 1:
        return 1.0
    units = unit(vectors)
    return float((np.square(units.sum(axis=0)).sum() - np.square(units).sum()) / (count * (count - 1)))
