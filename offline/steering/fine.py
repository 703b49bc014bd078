"""How a fine profile is put together, once it is known what is added at each concept (docs/method.md §4)."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import JsonValue

from trimtab.vectors import AlphaRange, ConceptDictionary, Gate, Profile
from trimtab.vectors.manifest import Positions

from ..concepts.methods import check_partition
from ..concepts.relabel import relabelled
from ..errors import SettingError
from ..states.store import Float32, LayerStates
from .gates import Bools, GatedLayer, Met, differences, met, own_limits, with_background
from .rows import doubts
from .words import provenance_of, typical_norm

__all__ = ["ConceptWarning", "Gating", "Part", "build", "checked", "parts_of"]

BACKGROUND_CONCEPTS = 32
"""How many concepts of the background a gate gets at most: four times what sufficed where it was measured
(docs/method.md §4), since a real vocabulary has more to tell apart."""
MOST_UNMEANT = 0.05
"""As much as a strength may change that is not meant, where it is chosen (docs/method.md §4)."""


class ConceptWarning(UserWarning):
    """A fine profile that will do less, or more, than its mapping says."""


@dataclass(frozen=True)
class Gating:
    """How the gate of a fine profile is kept to what it is meant for.

    gate: its scope, its metric and a distance for all concepts. limit: each concept steers within the distance that
    this share (0 to 1) of its own states keeps, whatever the gate's distance; see `own_limits`. background_concepts:
    rows of zeros, at most, to which other words fall; see `with_background`. most_unmeant: the largest share (0 to 1)
    of the positions of answers that may be steered of those that the profile is not meant for. force: make a profile
    that is refused otherwise, with a `ConceptWarning`: one that steers more than that, or whose dictionary was made
    from other states.

    Raises:
        SettingError: a share outside 0 to 1, or a negative number.
    """

    gate: Gate = field(default_factory=Gate)
    limit: float | None = None
    background_concepts: int = BACKGROUND_CONCEPTS
    most_unmeant: float = MOST_UNMEANT
    force: bool = False

    def __post_init__(self) -> None:
        for name, share in {"limit": self.limit, "most_unmeant": self.most_unmeant}.items():
            if share is not None and not 0 <= share <= 1:
                raise SettingError(f"{name} is {share:g}; give a share from 0 to 1, such as 0.99")
        if self.background_concepts < 0:
            raise SettingError(f"{self.background_concepts} concepts of the background asked for; give 0 or more")

    def refuse(self, reason: str) -> None:
        """Raise a SettingError, or only warn where `force` is set."""
        if not self.force:
            raise SettingError(f"{reason}; or make it all the same with --force")
        warnings.warn(reason, ConceptWarning, stacklevel=4)


@dataclass(frozen=True)
class Part:
    """What a layer of a fine profile is made of. meant: bool [N], for which of the states it is."""

    states: LayerStates
    dictionary: ConceptDictionary
    rows: Float32
    meant: Bools
    background: LayerStates | None


def parts_of(
    layers: Sequence[tuple[LayerStates, ConceptDictionary]],
    rows: Sequence[Float32],
    meant: Sequence[Bools],
    background: Sequence[LayerStates | None],
) -> list[Part]:
    others = list(background) or [None] * len(layers)
    own = [states.layer for states, _ in layers]
    if len(others) != len(own) or any(one and one.layer != layer for one, layer in zip(others, own, strict=True)):
        raise SettingError("background states were given for other layers than the dictionaries; give them in order")
    return [
        Part(states, dictionary, of_layer, intended, other)
        for (states, dictionary), of_layer, intended, other in zip(layers, rows, meant, others, strict=True)
    ]


def checked(states: LayerStates, dictionary: ConceptDictionary, gating: Gating) -> ConceptDictionary:
    """The dictionary, labelled as the states are, when it is one of theirs."""
    if dictionary.layer != states.layer or dictionary.model != states.manifest.request.model:
        raise SettingError(
            f"a dictionary of layer {dictionary.layer} of {dictionary.model.architecture} was given for states "
            f"of layer {states.layer} of {states.manifest.request.model.architecture}; both must be of one "
            "layer and model"
        )
    check_partition(dictionary)
    if different := differences(states, dictionary):
        gating.refuse(
            f"layer {states.layer}: the dictionary was not made from these states: it was made with {different}; "
            "give the states that it was made from, or make a dictionary from these"
        )
    same = dictionary.provenance.labels == states.manifest.request.labels
    return dictionary if same else relabelled(dictionary, states)


def build(
    name: str,
    parts: Sequence[Part],
    words: Collection[str],
    targets: Collection[str],
    gating: Gating,
    positions: Positions,
    alpha: AlphaRange | None,
    description: str,
) -> Profile:
    """The profile of its parts; warns of, or refuses, what it will not do, or do too much. words: the originals."""
    made = {part.states.layer: _gated_layer(part, gating, positions, words) for part in parts}
    limits = {layer: one.gated.limits for layer, one in made.items()}
    gate = gating.gate if gating.limit is None else Gate(**{**gating.gate.model_dump(), "limits": limits})
    reached: dict[str, JsonValue] = {}
    for part in parts:
        steered = made[part.states.layer].gated.steers(part.states.values, gate)
        own = {word: part.states.of({word}) for word in words}
        shares = {word: float(np.average(steered[of], weights=part.states.weights[of])) for word, of in own.items()}
        for doubt in doubts(part.dictionary, words, targets, shares):
            warnings.warn(f"layer {part.states.layer}: {doubt}", ConceptWarning, stacklevel=3)
        reached[str(part.states.layer)] = dict(shares)
    touched, unmeant, expected = {}, {}, {}
    for layer, one in made.items():
        if one.met is None:
            continue
        touched[layer], unmeant[layer] = one.met.touched(one.gated, gate)
        if positions == "answer":  # else the gate decides at other positions too
            expected[layer] = one.met.expected(one.gated, gate)
        if unmeant[layer] > gating.most_unmeant:
            gating.refuse(
                f"layer {layer}: the profile would steer {unmeant[layer]:.1%} of the positions of answers that it is "
                f"not meant for; allowed is {gating.most_unmeant:.0%}. Use more concepts of the background, a limit "
                "(--limit-share 0.99), or a dictionary of more words (--rule 'predicts:*')"
            )
    first = parts[0].dictionary
    method = f"{first.method}, K = {len(first.labels)}"
    provenance = provenance_of(parts[0].states, (*words, *targets), method, first.provenance.seed)
    return Profile.fine(
        name,
        {layer: (one.gated.centroids, one.gated.rows) for layer, one in made.items()},
        model=first.model,
        description=description,
        positions=positions,
        gate=gate,
        alpha=alpha,
        hidden_norms={part.states.layer: typical_norm(part.states) for part in parts},
        provenance=provenance.model_copy(update={"evaluation": {"training states": reached} if words else {}}),
        shares={
            part.states.layer: made[part.states.layer].gated.shares(part.states.values, part.states.weights)
            for part in parts
        },
        touched=touched or None,
        unmeant=unmeant or None,
        expected=expected or None,
    )


@dataclass(frozen=True)
class _Made:
    """A layer, and what it will meet; None where that is not known."""

    gated: GatedLayer
    met: Met | None


def _gated_layer(part: Part, gating: Gating, positions: Positions, words: Collection[str]) -> _Made:
    layer = GatedLayer(part.dictionary.centroids, part.rows, (None,) * len(part.rows))
    # States are those of answers. What there is at other positions is not known.
    known = positions in ("answer", "all")
    found = met(part.states, part.background, part.meant, gating.gate.scope, words) if known else None
    if found is not None:
        layer = with_background(layer, found, gating.background_concepts)
    if gating.limit is not None:
        layer = replace(layer, limits=own_limits(layer, part.states.values, gating.gate, gating.limit))
    return _Made(layer, found)
