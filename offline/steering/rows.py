"""What is added at each concept of a dictionary: the rows of a fine profile (docs/method.md §4)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from trimtab.vectors import ConceptDictionary

from ..concepts.labels import OWN_CONCEPT_PURITY
from ..errors import SettingError
from ..states.store import Float32

__all__ = ["concept_vectors", "doubts", "labelled", "pair_vectors", "the_same_at"]


def concept_vectors(dictionary: ConceptDictionary, mapping: Mapping[str, str]) -> Float32:
    """float32 [K, D]: row i is u_j - u_i if concept i is labelled by an original word, and zero otherwise.

    u_j is the nearest to u_i among the concepts of the target word, which makes the smallest change. An original word
    with several concepts has several vectors. u_i plus its own vector is u_j, so the sign matters.

    Raises:
        SettingError: an original or a target word that labels no concept.
    """
    u = dictionary.centroids.astype(np.float64)
    vectors = np.zeros_like(dictionary.centroids)
    for original, target in mapping.items():
        sources, targets = (labelled(dictionary, word) for word in (original, target))
        for i in sources:
            j = min(targets, key=lambda j: (float(np.linalg.norm(u[j] - u[i])), j))
            vectors[i] = (u[j] - u[i]).astype(np.float32)
    return vectors


def pair_vectors(dictionary: ConceptDictionary, pairs: Mapping[int, int]) -> Float32:
    """float32 [K, D]: row i is u_j - u_i for each pair {i: j} of concept numbers, and zero otherwise.

    Raises:
        SettingError: a number that the dictionary does not have, or a concept that is to become itself.
    """
    u = dictionary.centroids.astype(np.float64)
    vectors = np.zeros_like(dictionary.centroids)
    for i, j in pairs.items():
        if not (0 <= i < len(u) and 0 <= j < len(u)) or i == j:
            raise SettingError(
                f"the pair {i} → {j} names no two concepts; the dictionary has the concepts 0 to {len(u) - 1}"
            )
        vectors[i] = (u[j] - u[i]).astype(np.float32)
    return vectors


def the_same_at(dictionary: ConceptDictionary, words: Iterable[str], vector: Float32) -> Float32:
    """float32 [K, D]: `vector` [D] at the concepts that are labelled by one of the words, and zero otherwise.

    Raises:
        SettingError: a word that labels no concept.
    """
    rows = np.zeros_like(dictionary.centroids)
    for word in words:
        rows[labelled(dictionary, word)] = vector
    return rows


def doubts(
    dictionary: ConceptDictionary, words: Collection[str], targets: Collection[str], reached: Mapping[str, float]
) -> list[str]:
    """The doubts about a fine profile of this dictionary, one sentence each; empty if there are none.

    words: the original ones. reached: the share of each one's states that will be steered.
    """
    found = []
    for word in dict.fromkeys((*words, *targets)):
        purest = max(dictionary.purity[i] for i in labelled(dictionary, word))
        if purest < OWN_CONCEPT_PURITY:
            found.append(
                f"{word!r} has no concept of its own (the purest one labelled so holds {purest:.0%} of it); "
                "use another k, or --method class-means"
            )
    for word in words:
        if reached[word] < OWN_CONCEPT_PURITY:
            found.append(
                f"only {reached[word]:.0%} of the states of {word!r} lie in its concepts and will be steered; "
                "use another k, or --method class-means, or a wider limit where there is one"
            )
    return found


def labelled(dictionary: ConceptDictionary, word: str) -> list[int]:
    """The numbers of the concepts that a word labels.

    Raises:
        SettingError: there is none.
    """
    found = [i for i, label in enumerate(dictionary.labels) if label == word]
    if not found:
        raise SettingError(f"no concept stands for {word!r}; use a larger k, or --method class-means")
    return found
