"""The labels of concepts: which word most of a concept's states stand for, and how pure that makes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from trimtab.vectors import ConceptDictionary
from trimtab.vectors.concepts import Method
from trimtab.vectors.states import StatesManifest

from ..states.store import Float32, Int64

__all__ = ["OWN_CONCEPT_PURITY", "assemble", "by_size", "most_frequent", "tally"]

OWN_CONCEPT_PURITY = 0.8
"""A word has its own concept if a concept is labelled by it and this share of its states mean it."""


def tally(labels: Sequence[str], assigned: Int64, k: int) -> list[Counter[str]]:
    """For each of k concepts the labels of its states. assigned: int64 [N], the concept of each state, -1 for none."""
    tallies: list[Counter[str]] = [Counter() for _ in range(k)]
    for label, concept in zip(labels, assigned.tolist(), strict=True):
        if concept >= 0:
            tallies[concept][label] += 1
    return tallies


def assemble(
    centroids: npt.NDArray[np.floating],
    tallies: Sequence[Counter[str]],
    method: Method,
    *,
    layer: int,
    manifest: StatesManifest,
    samples: Counter[str],
    seed: int | None,
) -> ConceptDictionary:
    """A dictionary of concepts in the given order, each labelled by its tally; "" where that is empty.

    centroids: [K, D]. tallies: see `tally`. samples: the labels of all states.
    """
    labels, counts, purity = [], [], []
    for words in tallies:
        label, hits = most_frequent(words)
        labels.append(label)
        counts.append(words.total())
        purity.append(hits / max(words.total(), 1))
    return ConceptDictionary(
        layer=layer,
        centroids=centroids.astype(np.float32),
        labels=tuple(labels),
        counts=np.array(counts, np.int64),
        purity=np.array(purity),
        method=method,
        model=manifest.request.model,
        provenance=manifest.provenance(
            method, seed, dict(sorted(samples.items())), **{"scikit-learn": version("scikit-learn")}
        ),
    )


def by_size(centroids: Float32, tallies: Sequence[Counter[str]]) -> list[int]:
    """Indices of the concepts that have states, from the largest to the smallest; equal states give one order only."""
    found = [concept for concept, words in enumerate(tallies) if words]
    return sorted(found, key=lambda i: (-tallies[i].total(), most_frequent(tallies[i])[0], centroids[i].tobytes()))


def most_frequent(words: Counter[str]) -> tuple[str, int]:
    """The most frequent word, the first in the alphabet of several, and how often it comes."""
    return min(words.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
