"""Controls on held-out samples, which the paper lacks: does Δ_k say more than another shift would?

Concepts and shifts come from one half of the samples. The fine-tune's concepts that they are compared with come from
the other half. All vectors are centred by the mean of the fine-tune's states on the first half: at the last layer all
states share one large direction, and without centring every cosine would be near 1.

    no shift          u_k
    global mean       u_k + the mean of all δ
    shuffled          u_k + Δ_j of another concept, the mean over all j ≠ k
    random clusters   u_k + the mean δ of as many random samples as A_k has, the mean over several partitions
    per concept       u_k + Δ_k
    ceiling           the fine-tune's own concept of the first half that is nearest
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from trimtab.vectors import ConceptDictionary

from ..states.paired import Pairs
from .deltas import ConceptShifts
from .matching import cosines, match_concepts

__all__ = ["control_cosines"]

Float64 = npt.NDArray[np.float64]

PARTITIONS = 20
"""Random partitions that the cosine of "random clusters" is averaged over."""


def control_cosines(
    fit: Pairs, shifts: ConceptShifts, tuned: ConceptDictionary, held_out: ConceptDictionary, seed: int
) -> dict[str, Float64]:
    """For each control the cosine of every concept to its held-out match, float64 [K], by name.

    fit: the first half. shifts: of its concepts. tuned, held_out: the fine-tune's dictionaries of the first and of the
    other half. All controls of a concept are compared with one match, that of u_k.
    """
    mean = fit.b.values.mean(axis=0, dtype=np.float64)
    u, targets = shifts.concepts - mean, held_out.centroids - mean
    chosen = targets[match_concepts(u, targets)]
    k = len(u)
    others = [np.roll(shifts.deltas, turn, axis=0) for turn in range(1, k)] or [np.zeros_like(u)]
    return {
        "no shift": _to(chosen, u),
        "global mean": _to(chosen, u + fit.shifts.mean(axis=0)),
        "shuffled": np.mean([_to(chosen, u + deltas) for deltas in others], axis=0),
        "random clusters": np.mean([_to(chosen, u + deltas) for deltas in _random_deltas(fit, shifts, seed)], axis=0),
        "per concept": _to(chosen, u + shifts.deltas),
        "ceiling": cosines(chosen, tuned.centroids - mean).max(axis=1),
    }


def _to(chosen: Float64, vectors: Float64) -> Float64:
    found: Float64 = np.diagonal(cosines(vectors, chosen)).copy()
    return found


def _random_deltas(fit: Pairs, shifts: ConceptShifts, seed: int) -> Iterator[Float64]:
    """The mean δ of each cluster of random partitions whose clusters have the sizes of the real ones, [K, D] each."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(len(shifts.counts)), shifts.counts)
    moved = fit.shifts
    for _ in range(PARTITIONS):
        sums = np.zeros_like(shifts.deltas)
        np.add.at(sums, rng.permutation(clusters), moved)
        yield sums / np.maximum(shifts.counts, 1)[:, None]
