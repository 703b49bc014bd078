"""Concepts labelled by other labels of the states that they were made of.

A dictionary of answers ("two", "three", "yes") whose states are labelled anew by the type of question ("number",
"yes/no") keeps its concepts: each is labelled by what most of its states are labelled now. A mapping then says which
type is to become which, and a fine profile leads each concept to the nearest of the target type (docs/method.md §4).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trimtab.vectors import ConceptDictionary

from ..states.store import LayerStates
from .labels import most_frequent, tally
from .methods import strongest

__all__ = ["relabelled"]


def relabelled(dictionary: ConceptDictionary, states: LayerStates) -> ConceptDictionary:
    """The same concepts, labelled by what most of `states` that activate them are labelled; "" where none does."""
    counted = tally(states.labels, strongest(dictionary, states.values), len(dictionary.labels))
    most = [most_frequent(words) for words in counted]
    return replace(
        dictionary,
        labels=tuple(label for label, _ in most),
        counts=np.array([words.total() for words in counted], np.int64),
        purity=np.array([hits / max(words.total(), 1) for (_, hits), words in zip(most, counted, strict=True)]),
        provenance=dictionary.provenance.model_copy(update={"labels": states.manifest.request.labels}),
    )
