"""Sets of samples instead of words: states and concepts labelled by what type of question they answer.

A mapping then says which type of answer is to become which, {"number": "yes/no", "other": "yes/no"}, and `steer` builds
coarse and fine profiles of it as of any other (docs/method.md §4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from trimtab.vectors import ConceptDictionary

from ..errors import DataError
from ..states.samples import Sample
from ..states.store import LayerStates
from .labels import most_frequent, tally
from .methods import strongest

__all__ = ["by_type", "relabelled"]


def by_type(states: LayerStates, samples: Iterable[Sample]) -> LayerStates:
    """The same states, each labelled by the `type` of its sample, in lower case.

    Raises:
        DataError: a state of a sample that is not among `samples`, or that has no type.
    """
    types = {sample.id: sample.type.lower() for sample in samples}
    labels = tuple(types.get(sample, "") for sample in states.sample_ids)
    if "" in labels:
        sample = states.sample_ids[labels.index("")]
        raise DataError(
            f"sample {sample!r} of the states has no type in the samples file; give the file of these states"
        )
    return replace(states, labels=labels)


def relabelled(dictionary: ConceptDictionary, states: LayerStates) -> ConceptDictionary:
    """The same concepts, labelled by what most of `states` that activate them are labelled now; "" where none does."""
    counted = tally(states.labels, strongest(dictionary, states.values), len(dictionary.labels))
    most = [most_frequent(words) for words in counted]
    return replace(
        dictionary,
        labels=tuple(label for label, _ in most),
        counts=np.array([words.total() for words in counted], np.int64),
        purity=np.array([hits / max(words.total(), 1) for (_, hits), words in zip(most, counted, strict=True)]),
    )
