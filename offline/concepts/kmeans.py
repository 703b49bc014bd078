"""From states to a concept dictionary (docs/method.md §2): K-Means, or the mean of every answer.

States that do not fit into memory: `.mini_batch`. Other ways to factorise: `.factors`.
"""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from trimtab.vectors import ConceptDictionary
from trimtab.vectors.concepts import Method

from ..errors import SettingError
from ..progress import tracked
from ..states.store import Float32, Int64, LayerStates
from .labels import assemble, by_size, tally

__all__ = ["best_clusters", "check_k", "class_means", "kmeans"]

_FEWEST_STARTS = 10


def kmeans(
    states: LayerStates, k: int = 20, seed: int = 0, n_init: int = 10, *, progress: bool = False
) -> ConceptDictionary:
    """K-Means over the states as they are, without centring or normalisation: concept = centre.

    A state activates its nearest centre. Each concept is labelled by the word that most of its states stand for (the
    first in the alphabet wins a tie), and concepts are ordered from the largest to the smallest. Equal states, k, seed
    and n_init give equal bits: one thread is used, since the order in which threads add up changes the last bit.

    If there are fewer than k distinct states, empty clusters are left out and the dictionary is smaller.

    Raises:
        SettingError: k beyond 1 … N, or n_init below 10 (fewer starts make dictionaries that depend on the seed).
    """
    check_k(k, len(states.values), n_init)
    assigned = best_clusters(states.values, k, seed, n_init, progress=progress).labels_
    return _means(states, np.asarray(assigned, np.int64), "kmeans", seed)


def class_means(states: LayerStates, min_count: int = 1) -> ConceptDictionary:
    """One concept for every label: the mean of its states. Counts and purity follow the labels, hence purity is 1.

    min_count: labels with fewer states than this are left out (in real captions most words are rare).

    Raises:
        SettingError: the states have no labels, or none has `min_count` states.
    """
    if not any(states.labels):
        rule = states.manifest.request.rule
        raise SettingError(f"states of the rule {rule!r} have no labels to take means of; use --method kmeans")
    counts = Counter(states.labels)
    kept = sorted(label for label, count in counts.items() if label and count >= min_count)
    if not kept:
        raise SettingError(f"no label has {min_count} states; the most frequent one has {max(counts.values())}")
    numbers = {label: number for number, label in enumerate(kept)}
    assigned = np.array([numbers.get(label, -1) for label in states.labels], np.int64)
    return _means(states, assigned, "class-means", None)


def check_k(k: int, states: int, n_init: int = _FEWEST_STARTS) -> None:
    """Passes when k concepts can be had from so many states, with enough starts.

    Raises:
        SettingError: as `kmeans`.
    """
    if not 1 <= k <= states:
        raise SettingError(f"k is {k}; with {states:,} states it can be 1 to {states:,}")
    if n_init < _FEWEST_STARTS:
        raise SettingError(f"n_init is {n_init}; use {_FEWEST_STARTS} or more, for fewer starts depend on the seed")


def best_clusters(values: Float32, k: int, seed: int, n_init: int, *, progress: bool = False) -> KMeans:
    """scikit-learn's K-Means of values [N, D], the best of n_init starts, in one thread.

    What KMeans(n_init=…) finds, to the bit, one start after the other: it cannot say how far it is.
    """
    random = np.random.RandomState(seed)
    best: KMeans | None = None
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct states than k: the callers handle it
        for _ in tracked(f"K-Means, k = {k}", range(n_init), n_init, unit="start", show=progress):
            found = KMeans(k, n_init=1, random_state=random).fit(values)
            if best is None or (found.inertia_ < best.inertia_ and not _same(found.labels_, best.labels_)):
                best = found
    assert best is not None
    return best


def _same(a: Int64, b: Int64) -> bool:
    """Whether two partitions are one, but for the numbers of their parts: rounding alone then tells them apart."""
    pairs = len(np.unique(np.stack([a, b]), axis=1).T)
    return pairs == len(np.unique(a)) == len(np.unique(b))


def _means(states: LayerStates, assigned: Int64, method: Method, seed: int | None) -> ConceptDictionary:
    """The dictionary of a partition: the mean of each part. assigned: see `tally`."""
    k = int(assigned.max()) + 1
    means = np.zeros((k, states.values.shape[1]), np.float32)
    for concept in np.unique(assigned[assigned >= 0]):
        means[concept] = states.values[assigned == concept].mean(axis=0, dtype=np.float64)
    tallies = tally(states.labels, assigned, k)
    order = by_size(means, tallies)
    return assemble(
        means[order],
        [tallies[concept] for concept in order],
        method,
        layer=states.layer,
        manifest=states.manifest,
        samples=Counter(states.labels),
        seed=seed,
    )
