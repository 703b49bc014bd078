"""From states and dictionaries to steering profiles (docs/method.md §4).

A mapping {original word: target word} says what is to become what: {"yes": "no"}, or several pairs at once, such as
{"man": "person", "woman": "person", "his": "their", "her": "their"}.

coarse_profile   one vector per layer, added everywhere
fine_profile     one vector per concept, added where that concept is the nearest
gated_profile    one vector per layer, added where a concept of the originals is the nearest
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import numpy as np

from trimtab.vectors import AlphaRange, ConceptDictionary, Profile, SteeringVector
from trimtab.vectors.manifest import Positions

from ..errors import SettingError
from ..states.store import LayerStates
from .fine import Gating, build, checked, parts_of
from .rows import concept_vectors, pair_vectors, the_same_at
from .words import check_pairs, check_words, provenance_of, spoken, typical_norm

__all__ = ["coarse_profile", "coarse_vectors", "fine_profile", "gated_profile"]


def coarse_profile(
    name: str,
    states: Sequence[LayerStates],
    mapping: Mapping[str, str],
    *,
    positions: Positions = "answer",
    alpha: AlphaRange | None = None,
    description: str = "",
) -> Profile:
    """One vector per layer, see `coarse_vectors`.

    states: of each layer that is to be steered, all from one folder. The profile's typical ‖h‖ is the median over all
    states of the layer.

    Raises:
        SettingError: as `coarse_vectors`.
    """
    return Profile.coarse(
        name,
        coarse_vectors(states, mapping),
        model=states[0].manifest.request.model,
        description=description or f"{spoken(mapping)}, one vector (target mean - original mean)",
        positions=positions,
        alpha=alpha,
        hidden_norms={layer.layer: typical_norm(layer) for layer in states},
        provenance=provenance_of(states[0], (*mapping, *mapping.values()), "difference of means", None),
    )


def coarse_vectors(states: Sequence[LayerStates], mapping: Mapping[str, str]) -> list[SteeringVector]:
    """For each layer the mean of all states labelled by a target word minus the mean of those by an original.

    Raises:
        SettingError: a word without states, a word on both sides, or two answers that these states cannot tell apart
            because both begin with the token that the states predict.
    """
    if both := sorted(set(mapping) & set(mapping.values())):
        raise SettingError(f"{both[0]!r} is an original and a target word; one vector cannot do both, use --kind fine")
    vectors = []
    for layer in states:
        check_pairs(layer, mapping)
        original, target = layer.of(set(mapping)), layer.of(set(mapping.values()))
        vectors.append(SteeringVector.between(layer.values[original], layer.values[target], layer.layer))
    return vectors


def fine_profile(
    name: str,
    layers: Sequence[tuple[LayerStates, ConceptDictionary]],
    mapping: Mapping[str, str] | Mapping[int, int],
    *,
    background: Sequence[LayerStates | None] = (),
    gating: Gating | None = None,
    positions: Positions = "answer",
    alpha: AlphaRange | None = None,
    description: str = "",
) -> Profile:
    """One vector per concept, s_ij = u_j - u_i, added only where concept i is the nearest: see `concept_vectors`.

    layers: for each layer that is to be steered its states and their dictionary. Where the states were labelled anew
    since, the concepts are labelled as the states are. mapping: of words; or of concept numbers {i: j}, for one layer.

    background: for each of the layers its background states, see `load_background`. With them the gate gets concepts of
    the background, and the manifest says which share of the positions the profile will steer, and which of those that
    it is not meant for. gating: how the gate is kept to what it is meant for.

    A `ConceptWarning` says which word has no concept of its own, or has many states that will not be steered. The
    provenance keeps the share of each original word's states that are steered.

    Raises:
        SettingError: as `coarse_profile`; a word that labels no concept at all; a dictionary of another model or layer,
            one that was made from other states, or one whose concepts are no centres (semi-nmf, pca, simple); a profile
            that would steer more of the other positions than `gating` allows.
    """
    gating = gating or Gating()
    layers = [(states, checked(states, dictionary, gating)) for states, dictionary in layers]
    if any(isinstance(original, int) for original in mapping):
        numbers = cast("Mapping[int, int]", mapping)
        if len(layers) > 1:
            raise SettingError("pairs of concept numbers belong to one dictionary; give one, or words")
        rows = [pair_vectors(dictionary, numbers) for _, dictionary in layers]
        meant = [np.isin(dictionary.nearest(states.values), list(numbers)) for states, dictionary in layers]
        labels, words = layers[0][1].labels, {}
        said = spoken({f"concept {i} ({labels[i]})": f"concept {j} ({labels[j]})" for i, j in numbers.items()})
    else:
        words = dict(cast("Mapping[str, str]", mapping))
        for states, _ in layers:
            check_pairs(states, words)
        rows = [concept_vectors(dictionary, words) for _, dictionary in layers]
        meant = [states.of(set(words)) for states, _ in layers]
        said = spoken(words)
    parts = parts_of(layers, rows, meant, background)
    said = f"{said}, only where the concept of the original word is active"
    return build(name, parts, words, words.values(), gating, positions, alpha, description or said)


def gated_profile(
    name: str,
    layers: Sequence[tuple[LayerStates, ConceptDictionary]],
    originals: Collection[str],
    vectors: Sequence[SteeringVector],
    *,
    background: Sequence[LayerStates | None] = (),
    gating: Gating | None = None,
    positions: Positions = "answer",
    alpha: AlphaRange | None = None,
    description: str = "",
) -> Profile:
    """One vector per layer, added only where a concept labelled by one of `originals` is the nearest.

    vectors: one for each of the layers, such as those of `coarse_vectors`. The rest is as in `fine_profile`.

    Raises:
        SettingError: as `fine_profile`; vectors of other layers.
    """
    gating = gating or Gating()
    layers = [(states, checked(states, dictionary, gating)) for states, dictionary in layers]
    by_layer = {vector.layer: vector.values for vector in vectors}
    if len(by_layer) != len(vectors) or set(by_layer) != {states.layer for states, _ in layers}:
        raise SettingError(f"vectors of the layers {sorted(by_layer)} were given; give one for each dictionary's layer")
    for states, _ in layers:
        check_words(states, originals)
    rows = [the_same_at(dictionary, originals, by_layer[dictionary.layer]) for _, dictionary in layers]
    parts = parts_of(layers, rows, [states.of(set(originals)) for states, _ in layers], background)
    said = f"one vector, only where a concept of {', '.join(originals)} is active"
    return build(name, parts, originals, (), gating, positions, alpha, description or said)
