"""Dictionaries that are no partition: Semi-NMF, PCA and the largest rows (docs/method.md §2).

A concept is a direction here, and a row activates it by a coefficient, not by nearness (`.activation`).
That is why nothing of this can be a fine profile, whose gate is the nearest centre; K-Means and class means can.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from sklearn.decomposition import TruncatedSVD
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from trimtab.vectors import ConceptDictionary
from trimtab.vectors.concepts import Method

from ..errors import SettingError
from ..states.store import Float32, LayerStates
from .activation import Activation, coefficients, cosine, projection
from .kmeans import best_clusters, check_k
from .labels import assemble, tally
from .semi_nmf import factorise

__all__ = ["pca", "semi_nmf", "simple"]


def semi_nmf(
    rows: LayerStates, k: int = 20, seed: int = 0, n_init: int = 10, *, progress: bool = False
) -> ConceptDictionary:
    """Z ≈ U V with V ≥ 0, begun at the best of n_init starts of K-Means; concepts from the largest to the smallest.

    A concept's size is the number of rows of which it is the strongest, and may be 0. Concepts that came out as zero,
    for want of rows, are left out.

    Raises:
        SettingError: as `kmeans`.
    """
    check_k(k, len(rows.values), n_init)
    clusters = np.asarray(best_clusters(rows.values, k, seed, n_init).labels_, np.int64)
    with threadpool_limits(limits=1):
        concepts = factorise(rows.values, clusters, k, progress=progress).concepts.astype(np.float32)
        made = _dictionary(rows, concepts[concepts.any(axis=1)], "semi-nmf", coefficients, seed)
        order = sorted(range(len(made.counts)), key=lambda i: (-made.counts[i], made.centroids[i].tobytes()))
        return _dictionary(rows, made.centroids[order], "semi-nmf", coefficients, seed)


def pca(rows: LayerStates, k: int = 20, seed: int = 0) -> ConceptDictionary:
    """The k first right singular vectors of the rows, uncentred: orthonormal, in the order of what they explain.

    A direction and its opposite explain the same; the one is taken to which the rows add up. Directions that explain
    nothing (the rows have a lower rank) are left out. Without centring the first one is close to the mean of all rows,
    where that is far from zero; it then is the strongest of most rows, and the counts say so.

    Raises:
        SettingError: k is not 1 … min(N, D) - 1.
    """
    most = min(rows.values.shape) - 1
    if not 1 <= k <= most:
        count, size = rows.values.shape
        raise SettingError(f"k is {k}; {count:,} rows of size {size:,} have 1 to {most:,} principal components to take")
    with threadpool_limits(limits=1):
        found = TruncatedSVD(k, algorithm="arpack", random_state=seed).fit(rows.values.astype(np.float64))
        values, directions = found.singular_values_, found.components_
        directions = directions[values > values[0] * np.finfo(np.float32).eps]
        sums = directions @ rows.values.sum(axis=0, dtype=np.float64)
        directions = directions * np.where(sums < 0, -1, 1)[:, None]
        return _dictionary(rows, directions.astype(np.float32), "pca", projection, seed)


def simple(rows: LayerStates, k: int = 20) -> ConceptDictionary:
    """The k rows of largest norm, the earlier of two equal ones first: the baseline that every other has to beat.

    Raises:
        SettingError: k is not 1 … N.
    """
    check_k(k, len(rows.values))
    norms = np.linalg.norm(rows.values.astype(np.float64), axis=1)
    largest = np.argsort(-norms, kind="stable")[:k]
    with threadpool_limits(limits=1):
        return _dictionary(rows, rows.values[largest], "simple", cosine, None)


def _dictionary(
    rows: LayerStates, concepts: Float32, method: Method, activate: Activation, seed: int | None
) -> ConceptDictionary:
    """The dictionary of these directions, each labelled by the states that activate it most."""
    strongest = np.argmax(activate(rows.values, concepts), axis=1)
    return assemble(
        concepts,
        tally(rows.labels, strongest, len(concepts)),
        method,
        layer=rows.layer,
        manifest=rows.manifest,
        samples=Counter(rows.labels),
        seed=seed,
    )
