"""What may do it: profiles made from states, one for each kind, size and layer of a steering."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from trimtab.vectors import AlphaRange, ConceptDictionary, Gate, Profile, SteeringVector
from trimtab.vectors.manifest import MAX_ALPHA
from trimtab.vectors.profile import CoarseLayer

from ..concepts import class_means, kmeans
from ..concepts.relabel import relabelled
from ..errors import SettingError
from ..shift.profile import profile_of_shift
from ..states.labels import ANSWER
from ..states.paired import Pairs, pair_states
from ..states.store import LayerStates
from ..steering.choose_pair import pair_profile, pairs_near
from ..steering.fine import ConceptWarning, Gating
from ..steering.null_control import random_control
from ..steering.profiles import coarse_profile, fine_profile, gated_profile
from ..steering.words import check_words, typical_norm
from .config import Candidate, Steering
from .finer import mean_shift, split_means, with_words
from .material import Material, grouped, labelled_by

__all__ = ["Made", "make"]

ANY = AlphaRange(default=1.0, min=0.0, max=MAX_ALPHA)
"""Strengths of a profile that is tried: all, so that another grid asks the same profiles, whose answers are kept."""
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

    def dose(self, alpha: float) -> float | None:
        """α‖v‖/‖h‖ at that strength; None where the typical ‖h‖ is not known."""
        return self.profile.manifest.norms[self.layer].dose(alpha)

    def nulls(self, count: int) -> tuple[Profile, ...]:
        """The control: random vectors of the same norms, in so many draws."""
        names = (f"{self.name}-null{seed or ''}" for seed in range(count))
        return tuple(random_control(self.profile, name, seed) for seed, name in enumerate(names))


def make(name: str, steering: Steering, material: Material, say: Callable[[str], None]) -> list[Made]:
    """Every candidate of a steering. One that cannot be made is left out, and `say` is told why.

    Raises:
        SettingError, DataError: nothing at all can be made, or a label or a layer does not exist.
    """
    found: list[Made] = []
    refused: list[str] = []
    maker = _Maker(name, steering, material)
    maker.check()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConceptWarning)  # what a concept misses, or touches, is what dev shows
        for one, layer, attempt in maker.everything():
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
        self._words = cache(material.states)

    def check(self) -> None:
        """Passes when every label of the map has states.

        Raises:
            SettingError: names one that has none.
        """
        tuning = self._material.tuning
        layer = tuning.candidates_of(self._steering)[0].layers[0]
        targets = () if tuning.toward else self._steering.map.values()
        check_words(self._states(layer), (*self._steering.map, *targets))

    def everything(self) -> Iterator[tuple[Candidate, int, Callable[[], list[Made]]]]:
        """Every candidate at every layer, each with what makes it."""
        for one in self._material.tuning.candidates_of(self._steering):
            for layer in one.layers:
                for attempt in self._attempts(one, layer):
                    yield one, layer, attempt

    def _attempts(self, one: Candidate, layer: int) -> Iterator[Callable[[], list[Made]]]:
        """What one line of the configuration stands for at one layer: a maker for each of its sizes."""
        match one.kind:
            case "coarse":
                yield lambda: [self._coarse(one, layer)]
            case "class-means":
                yield lambda: [self._fine(one, layer, self._means(layer), "class means", "means")]
            case "kmeans":
                yield from (partial(self._clustered, one, layer, k) for k in one.k)
            case "pairs":
                yield from (partial(self._pairs, one, layer, k) for k in one.k)
            case "gated":
                yield lambda: [self._gated(one, layer)]
            case "shift":
                yield lambda: [self._shift(one, layer)]

    def _clustered(self, one: Candidate, layer: int, k: int) -> list[Made]:
        return [self._fine(one, layer, kmeans(self._words(layer), k), f"K-Means {k}", f"k{k}")]

    def _means(self, layer: int) -> ConceptDictionary:
        return class_means(self._words(layer), MIN_COUNT)

    def _states(self, layer: int) -> LayerStates:
        """The states, labelled as the steering's map speaks of them."""
        return self._labelled(self._words(layer))

    def _labelled(self, states: LayerStates) -> LayerStates:
        return grouped(labelled_by(states, self._material.train.samples, self._steering.label), self._steering.groups)

    def _background(self, layer: int) -> LayerStates | None:
        """The other positions of the same answers, in the groups of the map where these are of words."""
        found = self._material.background(layer)
        return found if found is None or self._steering.label != ANSWER else grouped(found, self._steering.groups)

    def _coarse(self, one: Candidate, layer: int) -> Made:
        name = f"{self._name}-coarse-{layer}"
        return self._made(one, "coarse", "coarse", layer, self._one_vector(name, layer))

    def _one_vector(self, name: str, layer: int) -> Profile:
        """The coarse profile: to the target's states, or to what another model has for the originals'."""
        if self._material.tuning.toward is None:
            return coarse_profile(name, [self._states(layer)], self._steering.map, alpha=ANY)
        pairs = self._shifted(layer)
        return Profile.coarse(
            name,
            [SteeringVector(layer, mean_shift(pairs, set(self._steering.map)))],
            model=pairs.a.manifest.request.model,
            description=f"{', '.join(self._steering.map)} toward the other model, one vector (mean shift)",
            alpha=ANY,
            hidden_norms={layer: typical_norm(pairs.a)},
        )

    def _gated(self, one: Candidate, layer: int) -> Made:
        name = f"{self._name}-gated{_gate_slug(one)}-{layer}"
        vector = self._one_vector(name, layer).tensors[layer]
        assert isinstance(vector, CoarseLayer)
        profile = gated_profile(
            name,
            [(self._states(layer), self._concepts(one, layer))],
            list(self._steering.map),
            [SteeringVector(layer, vector.vector)],
            background=[self._background(layer)],
            gating=_gating(one),
            alpha=ANY,
        )
        series = f"gated{_gate_spoken(one)}"
        return self._made(one, series, series, layer, profile)

    def _shift(self, one: Candidate, layer: int) -> Made:
        name = f"{self._name}-shift-{layer}"
        concepts = with_words(self._concepts(one, layer), self._material.background(layer), MIN_COUNT)
        profile = profile_of_shift(name, self._shifted(layer), concepts, alpha=ANY)
        return self._made(one, "shift by concept", "shift by concept", layer, profile)

    def _concepts(self, one: Candidate, layer: int) -> ConceptDictionary:
        return split_means(self._states(layer), self._material.train.samples, one.split)

    def _shifted(self, layer: int) -> Pairs:
        """This model's states, labelled as the map speaks of them, and the other model's."""
        toward = self._material.tuning.toward
        assert toward is not None
        pairs = pair_states(self._words(layer), self._material.states(layer, toward))
        ours = self._labelled(pairs.a)  # samples without a label are left out
        kept = np.flatnonzero(np.isin(pairs.a.sample_ids, ours.sample_ids))
        return Pairs(ours, pairs.b.at(kept), pairs.left_out)

    def _fine(self, one: Candidate, layer: int, dictionary: ConceptDictionary, how: str, slug: str) -> Made:
        """Concepts come from the model's own words, and are called by what the map speaks of."""
        states, steering = self._states(layer), self._steering
        if steering.label != ANSWER or steering.groups:
            dictionary = relabelled(dictionary, states)
        mapping = {a: b for a, b in steering.map.items() if {a, b} <= set(dictionary.labels)}
        if not mapping:
            raise SettingError(f"{how} gives no concept to any of {', '.join(steering.map)}")
        profile = fine_profile(
            f"{self._name}-{slug}{_gate_slug(one)}-{layer}",
            [(states, dictionary)],
            mapping,
            background=[self._background(layer)],
            gating=_gating(one),
            alpha=ANY,
        )
        kind = f"fine, {how.rstrip('0123456789').strip()}{_gate_spoken(one)}"
        return self._made(one, kind, f"fine, {how}{_gate_spoken(one)}", layer, profile)

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
            profile = pair_profile(name, dictionary, pair, alpha=ANY)
            series = f"pair {pair.i} → {pair.j} ({pair.original} → {pair.target})"
            found.append(self._made(one, "pairs of concepts", series, layer, profile))
        return found

    def _made(self, one: Candidate, kind: str, series: str, layer: int, profile: Profile) -> Made:
        also = one.also if layer == max(one.layers) else ()
        return Made(kind, series, layer, profile, one.alphas, also, one.best)


def _gating(one: Candidate) -> Gating:
    """A gate's scope and limit. Nothing is refused: what a profile does where it is not meant to, dev measures."""
    return Gating(gate=Gate(scope="sequence" if one.scope == "once" else "token"), limit=one.limit, force=True)


def _gate_slug(one: Candidate) -> str:
    return ("-once" if one.scope == "once" else "") + (f"-limit{one.limit:g}" if one.limit is not None else "")


def _gate_spoken(one: Candidate) -> str:
    once = ", decided once" if one.scope == "once" else ""
    return once + (f", limit {one.limit:g}" if one.limit is not None else "")
