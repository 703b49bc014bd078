"""From rows to a concept dictionary (METHOD, section 2): K-Means, or the mean of every answer."""

from __future__ import annotations

import warnings
from collections import Counter
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from trimtab.vectors import ConceptDictionary
from trimtab.vectors.concepts import Method
from trimtab.vectors.manifest import Provenance

from .errors import SettingError
from .rows import LayerRows


def kmeans(rows: LayerRows, k: int = 20, seed: int = 0, n_init: int = 10) -> ConceptDictionary:
    """K-Means over the rows as they are, without centring or normalisation: concept = centre.

    A row activates its nearest centre. Each concept is labelled by the word that most of its rows stand for (the first
    in the alphabet wins a tie), and concepts are ordered from the largest to the smallest. Equal rows, k, seed and
    n_init give equal bits: one thread is used, since the order in which threads add up changes the last bit.

    Where fewer than k distinct rows exist a cluster ends up empty; it is left out, and the dictionary is that smaller.

    Raises:
        SettingError: k beyond 1 … N, or n_init below 10 (fewer starts make dictionaries that depend on the seed).
    """
    count = len(rows.values)
    if not 1 <= k <= count:
        raise SettingError(f"k is {k}; with {count:,} rows it can be 1 to {count:,}")
    if n_init < 10:
        raise SettingError(f"n_init is {n_init}; use 10 or more, for fewer starts depend on the seed")
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than k: handled below
        assigned = KMeans(k, n_init=n_init, random_state=seed).fit(rows.values).labels_
    return _dictionary(rows, np.asarray(assigned, np.int64), "kmeans", seed)


def class_means(rows: LayerRows, min_count: int = 1) -> ConceptDictionary:
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
    return _dictionary(rows, assigned, "class-means", None)


def _dictionary(
    rows: LayerRows, assigned: npt.NDArray[np.int64], method: Method, seed: int | None
) -> ConceptDictionary:
    """The dictionary of a partition. assigned: int64 [N], the cluster of each row, -1 for none."""
    labels = np.array(rows.labels)
    concepts = []
    for cluster in np.unique(assigned[assigned >= 0]):
        members = assigned == cluster
        words = Counter(labels[members].tolist())
        label, hits = min(words.items(), key=lambda item: (-item[1], item[0]))
        centre = rows.values[members].mean(axis=0, dtype=np.float64).astype(np.float32)
        count = int(members.sum())
        concepts.append((-count, label, centre.tobytes(), centre, count, hits / count))
    concepts.sort(key=lambda concept: concept[:3])
    request = rows.manifest.request
    return ConceptDictionary(
        layer=rows.layer,
        centroids=np.stack([concept[3] for concept in concepts]),
        labels=tuple(concept[1] for concept in concepts),
        counts=np.array([concept[4] for concept in concepts], np.int64),
        purity=np.array([concept[5] for concept in concepts]),
        method=method,
        model=request.model,
        provenance=Provenance(
            dataset_digest=request.data,
            rule=request.rule,
            method=method,
            seed=seed,
            samples=dict(sorted(Counter(rows.labels).items())),
            versions={**rows.manifest.versions, "scikit-learn": version("scikit-learn")},
        ),
    )
