"""Dictionaries that are no partition: Semi-NMF, PCA and the largest states (docs/method.md §2).

A concept is a direction here, and a state activates it by a coefficient, not by nearness (`.activation`).
That is why nothing of this can be a fine profile, whose gate is the nearest centre; K-Means and class means can.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from sklearn.decomposition import TruncatedSVD
from threadpoolctl import threadpool_limits

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
    states: LayerStates, k: int = 20, seed: int = 0, n_init: int = 10, *, progress: bool = False
) -> ConceptDictionary:
    """Z ≈ U V with V ≥ 0, started from the best of n_init runs of K-Means. The largest concept comes first.

    A concept's size is the number of states that activate it most, and may be 0. Concepts that are zero, because there
    are too few states, are left out.

    Raises:
        SettingError: as `kmeans`.
    """
    check_k(k, len(states.values), n_init)
    clusters = np.asarray(best_clusters(states.values, k, seed, n_init, progress=progress).labels_, np.int64)
    with threadpool_limits(limits=1):
        concepts = factorise(states.values, clusters, k, progress=progress).concepts.astype(np.float32)
        made = _dictionary(states, concepts[concepts.any(axis=1)], "semi-nmf", coefficients, seed)
        order = sorted(range(len(made.counts)), key=lambda i: (-made.counts[i], made.centroids[i].tobytes()))
        return _dictionary(states, made.centroids[order], "semi-nmf", coefficients, seed)


def pca(states: LayerStates, k: int = 20, seed: int = 0) -> ConceptDictionary:
    """The first k right singular vectors of the states, without centring: orthonormal, the most explaining one first.

    The sign of a direction is free: it is chosen so that the sum of all states lies on its positive side. Directions
    that explain nothing, because the states have a lower rank than k, are left out. If the mean of all states is far
    from zero, the first direction is close to it; most states then activate it most, and the counts show that.

    Raises:
        SettingError: k is not 1 … min(N, D) - 1.
    """
    most = min(states.values.shape) - 1
    if not 1 <= k <= most:
        count, size = states.values.shape
        raise SettingError(
            f"k is {k}; {count:,} states of size {size:,} have 1 to {most:,} principal components to take"
        )
    with threadpool_limits(limits=1):
        found = TruncatedSVD(k, algorithm="arpack", random_state=seed).fit(states.values.astype(np.float64))
        values, directions = found.singular_values_, found.components_
        directions = directions[values > values[0] * np.finfo(np.float32).eps]
        sums = directions @ states.values.sum(axis=0, dtype=np.float64)
        directions = directions * np.where(sums < 0, -1, 1)[:, None]
        return _dictionary(states, directions.astype(np.float32), "pca", projection, seed)


def simple(states: LayerStates, k: int = 20) -> ConceptDictionary:
    """The k states of largest norm, the earlier of two equal ones first: the baseline that every other has to beat.

    Raises:
        SettingError: k is not 1 … N.
    """
    check_k(k, len(states.values))
    norms = np.linalg.norm(states.values.astype(np.float64), axis=1)
    largest = np.argsort(-norms, kind="stable")[:k]
    with threadpool_limits(limits=1):
        return _dictionary(states, states.values[largest], "simple", cosine, None)


def _dictionary(
    states: LayerStates, concepts: Float32, method: Method, activate: Activation, seed: int | None
) -> ConceptDictionary:
    """The dictionary of these directions, each labelled by the states that activate it most."""
    strongest = np.argmax(activate(states.values, concepts), axis=1)
    return assemble(
        concepts,
        tally(states.labels, strongest, len(concepts)),
        method,
        layer=states.layer,
        manifest=states.manifest,
        samples=Counter(states.labels),
        seed=seed,
    )
