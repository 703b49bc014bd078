"""How good a dictionary is (docs/method.md §2)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from itertools import permutations
from statistics import fmean
from typing import NamedTuple

import numpy as np

from trimtab.vectors import ConceptDictionary

from ..states.store import LayerStates
from .grounding import word_overlap
from .labels import OWN_CONCEPT_PURITY
from .methods import rebuilt

__all__ = ["Residual", "mean_overlap", "own_concepts", "residual", "sizes"]


class Residual(NamedTuple):
    """What a dictionary does not explain of the states Z, which it rebuilds as U V.

    squares: ‖Z - U V‖², for centres the inertia of K-Means. error: ‖Z - U V‖ / ‖Z‖, or 0 if all states are zero.
    """

    squares: float
    error: float


def residual(dictionary: ConceptDictionary, blocks: Iterable[LayerStates]) -> Residual:
    """What the concepts leave of the states, summed over all blocks in float64.

    `.methods` says how each method rebuilds a state.
    """
    left = total = 0.0
    for block in blocks:
        values = block.values.astype(np.float64)
        left += float(np.square(values - rebuilt(dictionary, block.values)).sum())
        total += float(np.square(values).sum())
    return Residual(left, math.sqrt(left / total) if total else 0.0)


def mean_overlap(found: Sequence[Collection[str]]) -> float:
    """The mean T-Overlap of all ordered pairs of different concepts, in percent; lower is better, 0 for one concept.

    found: the words of each concept, or the ids of the samples that activate it most.
    """
    overlaps = [word_overlap(a, b) for a, b in permutations(found, 2)]
    return fmean(overlaps) if overlaps else 0.0


def own_concepts(dictionary: ConceptDictionary) -> float:
    """The share of all labels, in [0, 1], that have a concept of their own: labelled so and at least 80 % pure."""
    labels = set(dictionary.provenance.samples) - {""}
    pure = zip(dictionary.labels, dictionary.purity, strict=True)
    owned = {label for label, purity in pure if purity >= OWN_CONCEPT_PURITY}
    return len(labels & owned) / len(labels) if labels else 0.0


def sizes(dictionary: ConceptDictionary) -> dict[str, float]:
    """States of the smallest and of the largest concept, and how many concepts no state activates most."""
    counts = dictionary.counts
    return {
        "smallest concept": float(counts.min()),
        "largest concept": float(counts.max()),
        "empty concepts": float((counts == 0).sum()),
    }
