"""From rows to a concept dictionary (docs/method.md §2): K-Means, or the mean of every answer.

Rows that do not fit into memory: `.mini_batch`. Other ways to factorise: `.factors`.
"""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from trimtab.vectors import ConceptDictionary
from trimtab.vectors.concepts import Method

from ..errors import SettingError
from ..states.store import Float32, Int64, LayerStates
from .labels import assemble, by_size, tally

__all__ = ["best_clusters", "check_k", "class_means", "kmeans"]

_FEWEST_STARTS = 10


def kmeans(rows: LayerStates, k: int = 20, seed: int = 0, n_init: int = 10) -> ConceptDictionary:
    """K-Means over the rows as they are, without centring or normalisation: concept = centre.

    A row activates its nearest centre. Each concept is labelled by the word that most of its rows stand for (the first
    in the alphabet wins a tie), and concepts are ordered from the largest to the smallest. Equal rows, k, seed and
    n_init give equal bits: one thread is used, since the order in which threads add up changes the last bit.

    Where fewer than k distinct rows exist a cluster ends up empty; it is left out, and the dictionary is that smaller.

    Raises:
        SettingError: k beyond 1 … N, or n_init below 10 (fewer starts make dictionaries that depend on the seed).
    """
    check_k(k, len(rows.values), n_init)
    assigned = best_clusters(rows.values, k, seed, n_init).labels_
    return _means(rows, np.asarray(assigned, np.int64), "kmeans", seed)


def class_means(rows: LayerStates, min_count: int = 1) -> ConceptDictionary:
    """One concept for every label: the mean of its rows. Counts and purity follow the labels, hence purity is 1.

    min_count: labels with fewer rows than this are left out (in real captions most words are rare).

    Raises:
        SettingError: the rows have no labels, or none has `min_count` rows.
    """
    if not any(rows.labels):
        rule = rows.manifest.request.rule
        raise SettingError(f"rows of the rule {rule!r} have no labels to take means of; use --method kmeans")
    counts = Counter(rows.labels)
    kept = sorted(label for label, count in counts.items() if count >= min_count)
    if not kept:
        raise SettingError(f"no label has {min_count} rows; the most frequent one has {max(counts.values())}")
    numbers = {label: number for number, label in enumerate(kept)}
    assigned = np.array([numbers.get(label, -1) for label in rows.labels], np.int64)
    return _means(rows, assigned, "class-means", None)


def check_k(k: int, rows: int, n_init: int = _FEWEST_STARTS) -> None:
    """Passes when k concepts can be had from so many rows, with enough starts.

    Raises:
        SettingError: as `kmeans`.
    """
    if not 1 <= k <= rows:
        raise SettingError(f"k is {k}; with {rows:,} rows it can be 1 to {rows:,}")
    if n_init < _FEWEST_STARTS:
        raise SettingError(f"n_init is {n_init}; use {_FEWEST_STARTS} or more, for fewer starts depend on the seed")


def best_clusters(values: Float32, k: int, seed: int, n_init: int) -> KMeans:
    """scikit-learn's K-Means of values [N, D], the best of n_init starts, in one thread."""
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than k: the callers handle it
        return KMeans(k, n_init=n_init, random_state=seed).fit(values)


def _means(rows: LayerStates, assigned: Int64, method: Method, seed: int | None) -> ConceptDictionary:
    """The dictionary of a partition: the mean of each part. assigned: see `tally`."""
    k = int(assigned.max()) + 1
    means = np.zeros((k, rows.values.shape[1]), np.float32)
    for concept in np.unique(assigned[assigned >= 0]):
        means[concept] = rows.values[assigned == concept].mean(axis=0, dtype=np.float64)
    tallies = tally(rows.labels, assigned, k)
    order = by_size(means, tallies)
    return assemble(
        means[order],
        [tallies[concept] for concept in order],
        method,
        layer=rows.layer,
        manifest=rows.manifest,
        samples=Counter(rows.labels),
        seed=seed,
    )
