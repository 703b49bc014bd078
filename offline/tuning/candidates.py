"""What may do it: profiles made from states, one for each kind, size and layer of a steering."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from trimtab.vectors import AlphaRange, ConceptDictionary, Profile

from ..concepts import class_means, kmeans
from ..concepts.labels import most_frequent, tally
from ..concepts.methods import strongest
from ..errors import SettingError
from ..states.store import LayerStates
from ..steering.choose_pair import pair_profile, pairs_near
from ..steering.null_control import random_control
from ..steering.profiles import coarse_profile, fine_profile
from .config import Candidate, Steering
from .material import Material, grouped, relabelled

__all__ = ["Made", "make"]

MIN_COUNT = 5
"""Fewest states of a label that get a concept of their own."""


@dataclass(frozen=True)
class Made:
    """A profile to try. kind: dev chooses among those of one kind. series: its name in curves and tables."""

    kind: str
    series: str
    layer: int
    profile: Profile
    alphas: tuple[float, ...]
    also: tuple[float, ...] = ()
    best: int = 1

    @property
    def name(self) -> str:
        return self.profile.name

    @property
    def null(self) -> Profile:
        """The control: random vectors of the same norms."""
        return random_control(self.profile, f"{self.name}-null", seed=0)


def make(name: str, steering: Steering, material: Material, say: Callable[[str], None]) -> list[Made]:
    """Every candidate of a steering. One that cannot be made is left out, and `say` is told why.

    Raises:
        SettingError, DataError: nothing at all can be made, or a label or a layer does not exist.
    """
    found: list[Made] = []
    refused: list[str] = []
    maker = _Maker(name, steering, material)
    for one in material.tuning.candidates_of(steering):
        for layer in one.layers:
            for attempt in maker.attempts(one, layer):
                try:
                    found += attempt()
                except SettingError as error:
                    refused.append(f"{name}: {one.kind} at layer {layer} is left out: {error}")
    if not found:
        raise SettingError(refused[0] if refused else f"{name}: has no candidate at all")
    for sentence in refused:
        say(sentence)
    return found


class _Maker:
    """Makes the candidates of one steering; states and dictionaries are made once."""

    def __init__(self, name: str, steering: Steering, material: Material) -> None:
        self._name, self._steering, self._material = name, steering, material
        tuning = material.tuning
        top = max(max(one.alphas + one.also) for one in tuning.candidates_of(steering))
        self._alpha = AlphaRange(default=min(1.0, top), min=0.0, max=top)
        self._words = cache(material.states)

    def attempts(self, one: Candidate, layer: int) -> Iterator[Callable[[], list[Made]]]:
        """What one line of the configuration stands for at one layer: a maker for each of its sizes."""
        match one.kind:
            case "coarse":
                yield lambda: [self._coarse(one, layer)]
            case "class-means":
                yield lambda: [self._fine(one, layer, self._means(layer), "class means", "means")]
            case "kmeans":
                for k in one.k:
                    yield lambda k=k: [self._fine(one, layer, kmeans(self._words(layer), k), f"K-Means {k}", f"k{k}")]
            case "pairs":
                for k in one.k:
                    yield lambda k=k: self._pairs(one, layer, k)
            case _:
                raise SettingError(f"candidates of the kind {one.kind!r} are not there yet; leave it out")

    def _means(self, layer: int) -> ConceptDictionary:
        return class_means(self._words(layer), MIN_COUNT)

    def _states(self, layer: int) -> LayerStates:
        """The states, labelled as the steering's map speaks of them."""
        labelled = relabelled(self._words(layer), self._material.train.samples, self._steering.label)
        return grouped(labelled, self._steering.groups)

    def _coarse(self, one: Candidate, layer: int) -> Made:
        name = f"{self._name}-coarse-{layer}"
        profile = coarse_profile(name, [self._states(layer)], self._steering.map, alpha=self._alpha)
        return self._made(one, "coarse", "coarse", layer, profile)

    def _fine(self, one: Candidate, layer: int, dictionary: ConceptDictionary, how: str, slug: str) -> Made:
        """Concepts come from the model's own words, and are called by what the map speaks of."""
        states = self._states(layer)
        mapping = self._steering.map
        labelled = _called(dictionary, states)
        mapping = {a: b for a, b in mapping.items() if {a, b} <= set(labelled.labels)}
        if not mapping:
            raise SettingError(f"{how} gives no concept to any of {', '.join(self._steering.map)}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a concept misses is what dev shows
            profile = fine_profile(f"{self._name}-{slug}-{layer}", [(states, labelled)], mapping, alpha=self._alpha)
        kind = f"fine, {how.rstrip('0123456789').strip()}"
        return self._made(one, kind, f"fine, {how}", layer, profile)

    def _pairs(self, one: Candidate, layer: int, k: int) -> list[Made]:
        states = self._states(layer)
        dictionary = kmeans(self._words(layer), k)
        original, target = (
            states.values[states.of(set(words))].mean(axis=0)
            for words in (self._steering.map, self._steering.map.values())
        )
        found = []
        for pair in pairs_near(dictionary, original, target, one.keep):
            name = f"{self._name}-pair{k}-{pair.i}-{pair.j}-{layer}"
            profile = pair_profile(name, dictionary, pair, alpha=self._alpha)
            series = f"pair {pair.i} → {pair.j} ({pair.original} → {pair.target})"
            found.append(self._made(one, "pairs of concepts", series, layer, profile))
        return found

    def _made(self, one: Candidate, kind: str, series: str, layer: int, profile: Profile) -> Made:
        also = one.also if layer == max(one.layers) else ()
        return Made(kind, series, layer, profile, one.alphas, also, one.best)


def _called(dictionary: ConceptDictionary, states: LayerStates) -> ConceptDictionary:
    """The same concepts, called by what most of the states that activate them are labelled; "" where none is."""
    counted = tally(states.labels, strongest(dictionary, states.values), len(dictionary.labels))
    most = [most_frequent(words) for words in counted]
    return replace(
        dictionary,
        labels=tuple(label for label, _ in most),
        counts=np.array([words.total() for words in counted], np.int64),
        purity=np.array([hits / max(words.total(), 1) for (_, hits), words in zip(most, counted, strict=True)]),
    )
