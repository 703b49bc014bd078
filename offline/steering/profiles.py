"""From rows and dictionaries to steering profiles (docs/method.md §4).

A mapping {original word: target word} says what is to become what: {"yes": "no"}, or several pairs at once, such as
{"man": "person", "woman": "person", "his": "their", "her": "their"}.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from trimtab.vectors import AlphaRange, ConceptDictionary, Gate, Profile, SteeringVector
from trimtab.vectors.manifest import Positions, Provenance

from ..concepts.labels import OWN_CONCEPT_PURITY
from ..concepts.methods import check_partition
from ..errors import SettingError
from ..states.rules import NO_TOKEN
from ..states.store import LayerStates


class ConceptWarning(UserWarning):
    """A fine profile that will do less, or more, than its mapping says."""


def coarse_profile(
    name: str,
    rows: Sequence[LayerStates],
    mapping: Mapping[str, str],
    *,
    positions: Positions = "answer",
    alpha: AlphaRange | None = None,
    description: str = "",
) -> Profile:
    """One vector a layer: mean of the rows labelled by any target - mean of those labelled by any original word.

    rows: one entry for each layer that is to be steered, all of one set of representations. Typical ‖h‖ is the median
    over all rows of the layer.

    Raises:
        SettingError: a word without rows, a word on both sides, or two words that these rows cannot tell apart (both
            begin with the same token, and the rows predict that one).
    """
    if both := sorted(set(mapping) & set(mapping.values())):
        raise SettingError(f"{both[0]!r} is an original and a target word; one vector cannot do both, use --kind fine")
    vectors = []
    for layer in rows:
        _check_words(layer, mapping)
        original, target = layer.of(set(mapping)), layer.of(set(mapping.values()))
        vectors.append(SteeringVector.between(layer.values[original], layer.values[target], layer.layer))
    return Profile.coarse(
        name,
        vectors,
        model=rows[0].manifest.request.model,
        description=description or f"{_spoken(mapping)}, one vector (target mean - original mean)",
        positions=positions,
        alpha=alpha,
        hidden_norms={layer.layer: typical_norm(layer) for layer in rows},
        provenance=_provenance(rows[0], mapping, "difference of means", None),
    )


def fine_profile(
    name: str,
    layers: Sequence[tuple[LayerStates, ConceptDictionary]],
    mapping: Mapping[str, str],
    *,
    positions: Positions = "answer",
    gate: Gate | None = None,
    alpha: AlphaRange | None = None,
    description: str = "",
) -> Profile:
    """s_ij = u_j - u_i, added only where concept i is the nearest: see `concept_vectors`.

    layers: rows and their dictionary for each layer that is to be steered. Warns with a `ConceptWarning` where a word
    has no concept of its own, or where many of its rows lie in other words' concepts: those will not be steered. What
    share of an original word's rows is reached, and what share of all other rows is touched, goes to the provenance.

    Raises:
        SettingError: as `coarse_profile`; a word that labels no concept at all; a dictionary of another model or layer,
            or one whose concepts are no centres (semi-nmf, pca, simple).
    """
    parts: dict[int, tuple[npt.ArrayLike, npt.ArrayLike]] = {}
    reached: dict[str, dict[str, float]] = {}
    for rows, dictionary in layers:
        if dictionary.layer != rows.layer or dictionary.model != rows.manifest.request.model:
            raise SettingError(
                f"a dictionary of layer {dictionary.layer} of {dictionary.model.architecture} was given for rows of "
                f"layer {rows.layer} of {rows.manifest.request.model.architecture}; both must be of one layer and model"
            )
        check_partition(dictionary)
        _check_words(rows, mapping)
        parts[rows.layer] = (dictionary.centroids, concept_vectors(dictionary, mapping))
        reached[str(rows.layer)] = _reach(rows, dictionary, mapping)
        for message in doubts(dictionary, mapping, reached[str(rows.layer)]):
            warnings.warn(f"layer {rows.layer}: {message}", ConceptWarning, stacklevel=2)
    first = layers[0][1]
    method = f"{first.method}, K = {len(first.labels)}"
    provenance = _provenance(layers[0][0], mapping, method, first.provenance.seed)
    return Profile.fine(
        name,
        parts,
        model=first.model,
        description=description or f"{_spoken(mapping)}, only where the concept of the original word is active",
        positions=positions,
        gate=gate,
        alpha=alpha,
        hidden_norms={rows.layer: typical_norm(rows) for rows, _ in layers},
        provenance=provenance.model_copy(update={"evaluation": {"training rows": dict(reached)}}),
    )


def concept_vectors(dictionary: ConceptDictionary, mapping: Mapping[str, str]) -> npt.NDArray[np.float32]:
    """float32 [K, D]: row i is u_j - u_i for every concept i labelled by an original word, and zero for all others.

    j is, of the concepts labelled by the target word, the one nearest to u_i (the smallest change that does it); an
    original word with several concepts gets a row for each. Adding row i at u_i gives u_j: the sign counts.

    Raises:
        SettingError: an original or a target word that labels no concept.
    """
    u = dictionary.centroids.astype(np.float64)
    vectors = np.zeros_like(dictionary.centroids)
    for original, target in mapping.items():
        sources, targets = (_labelled(dictionary, word) for word in (original, target))
        for i in sources:
            j = min(targets, key=lambda j: (float(np.linalg.norm(u[j] - u[i])), j))
            vectors[i] = (u[j] - u[i]).astype(np.float32)
    return vectors


def doubts(dictionary: ConceptDictionary, mapping: Mapping[str, str], reached: Mapping[str, float]) -> list[str]:
    """What speaks against a fine profile of this dictionary, a sentence each; empty where nothing does."""
    found = []
    for word in dict.fromkeys((*mapping, *mapping.values())):
        purest = max(dictionary.purity[i] for i in _labelled(dictionary, word))
        if purest < OWN_CONCEPT_PURITY:
            found.append(
                f"{word!r} has no concept of its own (the purest one labelled so holds {purest:.0%} of it); "
                "use another k, or --method class-means"
            )
    for word in mapping:
        if reached[word] < OWN_CONCEPT_PURITY:
            found.append(
                f"only {reached[word]:.0%} of the rows of {word!r} lie in its concepts and will be steered; "
                "use another k, or --method class-means"
            )
    return found


def typical_norm(rows: LayerStates) -> float:
    """The median ‖h‖ of the rows."""
    return float(np.median(np.linalg.norm(rows.values.astype(np.float64), axis=1)))


def _reach(rows: LayerStates, dictionary: ConceptDictionary, mapping: Mapping[str, str]) -> dict[str, float]:
    """For each original word the share of its rows whose nearest concept is its own; "others": of all other rows."""
    label_of_nearest = np.array(dictionary.labels)[dictionary.nearest(rows.values)]
    shares = {word: float(np.mean(label_of_nearest[rows.of({word})] == word)) for word in mapping}
    others = ~rows.of(set(mapping))
    touched = np.isin(label_of_nearest[others], list(mapping))
    return {**shares, "others": float(touched.mean()) if touched.size else 0.0}


def _labelled(dictionary: ConceptDictionary, word: str) -> list[int]:
    found = [i for i, label in enumerate(dictionary.labels) if label == word]
    if not found:
        raise SettingError(f"no concept stands for {word!r}; use a larger k, or --method class-means")
    return found


def _check_words(rows: LayerStates, mapping: Mapping[str, str]) -> None:
    counts = Counter(rows.labels)
    for word in (*mapping, *mapping.values()):
        if word not in counts:
            raise SettingError(
                f"no row stands for {word!r}{_meant(word, counts)}; represent more samples, or use another rule"
            )
    for original, target in mapping.items():
        first, second = (
            Counter(rows.tokens[rows.of({word})].tolist()).most_common(1)[0][0] for word in (original, target)
        )
        if first == second != NO_TOKEN:
            raise SettingError(
                f"{original!r} and {target!r} begin with the same token, and that is what these rows predict; "
                f"represent with --rule predicts:{original},{target}, which takes the token that tells them apart"
            )


def _meant(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, sorted(set(known)), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _spoken(mapping: Mapping[str, str]) -> str:
    return ", ".join(f"{original} → {target}" for original, target in mapping.items())


def _provenance(rows: LayerStates, mapping: Mapping[str, str], method: str, seed: int | None) -> Provenance:
    request = rows.manifest.request
    counts = Counter(rows.labels)
    return Provenance(
        dataset_digest=request.data,
        rule=request.rule,
        method=method,
        seed=seed,
        samples={word: counts[word] for word in dict.fromkeys((*mapping, *mapping.values()))},
        versions=dict(rows.manifest.versions),
    )
