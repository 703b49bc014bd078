"""From states and dictionaries to steering profiles (docs/method.md §4).

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
    states: Sequence[LayerStates],
    mapping: Mapping[str, str],
    *,
    positions: Positions = "answer",
    alpha: AlphaRange | None = None,
    description: str = "",
) -> Profile:
    """One vector per layer: the mean of all states labelled by a target word minus the mean of those by an original.

    states: of each layer that is to be steered, all from one folder. The profile's typical ‖h‖ is the median over all
    states of the layer.

    Raises:
        SettingError: a word without states, a word on both sides, or two answers that these states cannot tell apart
            because both begin with the token that the states predict.
    """
    if both := sorted(set(mapping) & set(mapping.values())):
        raise SettingError(f"{both[0]!r} is an original and a target word; one vector cannot do both, use --kind fine")
    vectors = []
    for layer in states:
        _check_words(layer, mapping)
        original, target = layer.of(set(mapping)), layer.of(set(mapping.values()))
        vectors.append(SteeringVector.between(layer.values[original], layer.values[target], layer.layer))
    return Profile.coarse(
        name,
        vectors,
        model=states[0].manifest.request.model,
        description=description or f"{_spoken(mapping)}, one vector (target mean - original mean)",
        positions=positions,
        alpha=alpha,
        hidden_norms={layer.layer: typical_norm(layer) for layer in states},
        provenance=_provenance(states[0], mapping, "difference of means", None),
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
    """One vector per concept, s_ij = u_j - u_i, added only where concept i is the nearest: see `concept_vectors`.

    layers: for each layer that is to be steered its states and their dictionary. A `ConceptWarning` says which word has
    no concept of its own, or has many states in the concepts of other words, which will not be steered. The provenance
    keeps two shares: of each original word's states that are reached, and of all other states that are touched.

    Raises:
        SettingError: as `coarse_profile`; a word that labels no concept at all; a dictionary of another model or layer,
            or one whose concepts are no centres (semi-nmf, pca, simple).
    """
    parts: dict[int, tuple[npt.ArrayLike, npt.ArrayLike]] = {}
    reached: dict[str, dict[str, float]] = {}
    for states, dictionary in layers:
        if dictionary.layer != states.layer or dictionary.model != states.manifest.request.model:
            raise SettingError(
                f"a dictionary of layer {dictionary.layer} of {dictionary.model.architecture} was given for states "
                f"of layer {states.layer} of {states.manifest.request.model.architecture}; both must be of one "
                "layer and model"
            )
        check_partition(dictionary)
        _check_words(states, mapping)
        parts[states.layer] = (dictionary.centroids, concept_vectors(dictionary, mapping))
        reached[str(states.layer)] = _reach(states, dictionary, mapping)
        for message in doubts(dictionary, mapping, reached[str(states.layer)]):
            warnings.warn(f"layer {states.layer}: {message}", ConceptWarning, stacklevel=2)
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
        hidden_norms={states.layer: typical_norm(states) for states, _ in layers},
        provenance=provenance.model_copy(update={"evaluation": {"training states": dict(reached)}}),
    )


def concept_vectors(dictionary: ConceptDictionary, mapping: Mapping[str, str]) -> npt.NDArray[np.float32]:
    """float32 [K, D]: row i is u_j - u_i if concept i is labelled by an original word, and zero otherwise.

    u_j is the nearest to u_i among the concepts of the target word, which makes the smallest change. An original word
    with several concepts has several vectors. u_i plus its own vector is u_j, so the sign matters.

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
    """The doubts about a fine profile of this dictionary, one sentence each; empty if there are none."""
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
                f"only {reached[word]:.0%} of the states of {word!r} lie in its concepts and will be steered; "
                "use another k, or --method class-means"
            )
    return found


def typical_norm(states: LayerStates) -> float:
    """The median ‖h‖ of the states."""
    return float(np.median(np.linalg.norm(states.values.astype(np.float64), axis=1)))


def _reach(states: LayerStates, dictionary: ConceptDictionary, mapping: Mapping[str, str]) -> dict[str, float]:
    """By original word the share of its states whose nearest concept is the word's own.

    "others" is the share of all other states whose nearest concept belongs to an original word.
    """
    label_of_nearest = np.array(dictionary.labels)[dictionary.nearest(states.values)]
    shares = {word: float(np.mean(label_of_nearest[states.of({word})] == word)) for word in mapping}
    others = ~states.of(set(mapping))
    touched = np.isin(label_of_nearest[others], list(mapping))
    return {**shares, "others": float(touched.mean()) if touched.size else 0.0}


def _labelled(dictionary: ConceptDictionary, word: str) -> list[int]:
    found = [i for i, label in enumerate(dictionary.labels) if label == word]
    if not found:
        raise SettingError(f"no concept stands for {word!r}; use a larger k, or --method class-means")
    return found


def _check_words(states: LayerStates, mapping: Mapping[str, str]) -> None:
    counts = Counter(states.labels)
    for word in (*mapping, *mapping.values()):
        if word not in counts:
            raise SettingError(
                f"no state stands for {word!r}{_meant(word, counts)}; represent more samples, or use another rule"
            )
    if states.manifest.request.labels is not None:
        return  # the labels are not the words that the states predict
    for original, target in mapping.items():
        first, second = (
            Counter(states.tokens[states.of({word})].tolist()).most_common(1)[0][0] for word in (original, target)
        )
        if first == second != NO_TOKEN:
            raise SettingError(
                f"{original!r} and {target!r} begin with the same token, and that is what these states predict; "
                f"represent with --rule predicts:{original},{target}, which takes the token that tells them apart"
            )


def _meant(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, sorted(set(known)), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _spoken(mapping: Mapping[str, str]) -> str:
    return ", ".join(f"{original} → {target}" for original, target in mapping.items())


def _provenance(states: LayerStates, mapping: Mapping[str, str], method: str, seed: int | None) -> Provenance:
    request = states.manifest.request
    counts = Counter(states.labels)
    return Provenance(
        dataset_digest=request.data,
        rule=request.rule,
        chat_template=request.chat_template,
        prompt=request.prompt,
        labels=request.labels,
        method=method,
        seed=seed,
        samples={word: counts[word] for word in dict.fromkeys((*mapping, *mapping.values()))},
        versions=dict(states.manifest.versions),
    )
