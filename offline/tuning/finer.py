"""Concepts that are finer than the labels of a map, and vectors that lead to what another model holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trimtab.vectors import ConceptDictionary
from trimtab.vectors.arrays import Float32

from ..concepts import class_means
from ..concepts.relabel import relabelled
from ..errors import SettingError
from ..states.paired import Pairs
from ..states.samples import Sample
from ..states.store import LayerStates
from .goals import value_of

__all__ = ["mean_shift", "split_means", "with_words"]


def mean_shift(pairs: Pairs, labels: set[str]) -> Float32:
    """The mean of δ over the states of some labels, float32 [D]."""
    found: Float32 = pairs.shifts[pairs.a.of(labels)].mean(axis=0).astype(np.float32)
    return found


def split_means(states: LayerStates, samples: Sequence[Sample], split: str) -> ConceptDictionary:
    """The means of each label's states; with a column `split`, of each of its values within a label, called by it.

    A label may be spread wide: "sign" holds states of every question that is asked at a sign.
    """
    if not split:
        return class_means(states)
    of = {sample.id: value_of(sample, split) or "" for sample in samples}
    finer = (f"{label}: {of[one]}" for label, one in zip(states.labels, states.sample_ids, strict=True))
    return relabelled(class_means(replace(states, labels=tuple(finer))), states)


def with_words(means: ConceptDictionary, background: LayerStates | None, fewest: int) -> ConceptDictionary:
    """The dictionary with a concept more for each word that `fewest` background states predict, or more.

    So has a gate where to go once an answer has begun.
    """
    if background is None:
        return means
    try:
        words = class_means(background, fewest)
    except SettingError:  # no word is frequent enough
        return means
    return replace(
        means,
        centroids=np.concatenate([means.centroids, words.centroids]),
        labels=(*means.labels, *(f"says {word}" for word in words.labels)),
        counts=np.concatenate([means.counts, words.counts]),
        purity=np.concatenate([means.purity, words.purity]),
    )
