"""What a gate will meet, how it is kept to what it is meant for, and what it will touch (docs/method.md §4).

A dictionary of a few words knows nothing else, so that every other word falls to one of its concepts too. Two things
keep a gate from those: concepts of the background, to which other words fall, and a limit on the distance.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.vectors import ConceptDictionary, Gate
from trimtab.vectors.manifest import MAX_LENGTH
from trimtab.vectors.nearest import distances, nearest

from ..concepts.kmeans import best_clusters
from ..states.rules import LastPrompt
from ..states.store import Float32, Float64, Int64, LayerStates

__all__ = [
    "WORDS_IN_GROUPS",
    "Bools",
    "GatedLayer",
    "Met",
    "differences",
    "met",
    "own_limits",
    "with_background",
]

Bools = npt.NDArray[np.bool_]

WORDS_IN_GROUPS = "words in groups"
"""How the request's `labels` begin where groups of the model's own words label states, and background states too."""

_STATES_OF_A_CONCEPT = 5
_STATES_OF_A_LIMIT = 20
"""Fewest own states of a concept whose limit is taken from them alone; a quantile of fewer is their largest."""
_MOST_CLUSTERED = 20_000
"""Of so many background states, drawn by the seed, concepts are made: as many as decide them, in minutes at most."""


@dataclass(frozen=True)
class GatedLayer:
    """A layer of a fine profile. centroids, rows: float32 [K, D]. limits: K distances, None for a concept without."""

    centroids: Float32
    rows: Float32
    limits: tuple[float | None, ...]

    @property
    def active(self) -> Bools:
        """The concepts that are steered, whose rows are not zero: bool [K]."""
        found: Bools = np.asarray(self.rows.any(axis=1))
        return found

    def chooses(self, values: Float32, gate: Gate) -> tuple[Int64, Bools]:
        """Of the states [N, D] the nearest concept, int64 [N], and whether it is near enough, bool [N]."""
        fallen = nearest(values, self.centroids)
        reach = np.array([_or_inf(gate.max_distance if limit is None else limit) for limit in self.limits])
        return fallen, distances(values, self.centroids[fallen], gate.metric) <= reach[fallen]

    def steers(self, values: Float32, gate: Gate) -> Bools:
        """Which of the states [N, D] the gate lets a row that is not zero be added to: bool [N]."""
        fallen, inside = self.chooses(values, gate)
        steered: Bools = self.active[fallen] & inside
        return steered

    def shares(self, values: Float32, weights: Float64) -> tuple[float, ...]:
        """The share of the states [N, D], each counted by its weight [N], that each concept is the nearest to."""
        return self._shares(nearest(values, self.centroids), weights, float(weights.sum()))

    def expected(self, values: Float32, weights: Float64, gate: Gate) -> tuple[float, ...]:
        """The share of the states [N, D], each counted by its weight [N], for which the gate chooses each concept."""
        fallen, inside = self.chooses(values, gate)
        return self._shares(fallen[inside], weights[inside], float(weights.sum()))

    def _shares(self, fallen: Int64, weights: Float64, total: float) -> tuple[float, ...]:
        counts = np.bincount(fallen, weights, len(self.centroids))
        return tuple(np.minimum(counts / total, 1.0).tolist())


@dataclass(frozen=True)
class Met:
    """Positions that a served profile decides at: N states, of the rule and of the background.

    values: float32 [N, D]. weights: float64 [N], how many served positions each stands for. meant: bool [N], whether
    the profile is meant for it. background: bool [N], which of them are background states.
    """

    values: Float32
    weights: Float64
    meant: Bools
    background: Bools

    def touched(self, layer: GatedLayer, gate: Gate) -> tuple[float, float]:
        """The share of all positions that are steered, and of those that are not meant."""
        steered = layer.steers(self.values, gate)
        others = self.weights * ~self.meant
        unmeant = float(others @ steered) / float(others.sum()) if others.any() else 0.0
        return float(self.weights @ steered) / float(self.weights.sum()), unmeant

    def expected(self, layer: GatedLayer, gate: Gate) -> tuple[float, ...]:
        """The share of the positions at which the gate chooses each concept, see `ProfileManifest.expected`."""
        return layer.expected(self.values, self.weights, gate)


def met(
    states: LayerStates, background: LayerStates | None, meant: Bools, scope: str, words: Collection[str] = ()
) -> Met | None:
    """What a gate of this scope will meet; None where nothing is known of the background.

    Of a gate that decides once per answer, the states of the rule last-prompt are all: they need no background.

    meant: bool [N], for which of `states` the profile is. words: the labels that it is meant for, where labels say it.
    The background of an answer is meant as well where labels are not the model's own words, so that they speak of the
    whole sample, also of one that has no state. Of groups of words, a background state is meant when its group is. With
    scope "sequence" only the last position of each prompt decides.
    """
    if background is None:
        if scope != "sequence" or states.manifest.request.rule != str(LastPrompt()):
            return None
        background = states.at(np.zeros(0, np.int64))
    also = np.zeros(len(background.values), np.bool_)
    labels = states.manifest.request.labels or ""
    if labels.startswith(WORDS_IN_GROUPS):
        groups = {label for label, one in zip(states.labels, meant, strict=True) if one}
        also = np.array([label in groups for label in background.labels], np.bool_)
    elif labels:
        wanted = {sample for sample, one in zip(states.sample_ids, meant, strict=True) if one}
        if words and background.sample_labels is not None and background.manifest.request.labels == labels:
            # A cap may have left out all states of a sample.
            own = zip(background.sample_ids, background.sample_labels, strict=True)
            wanted |= {sample for sample, label in own if label in words}
        also = np.array([sample in wanted for sample in background.sample_ids], np.bool_)
    positions = np.concatenate([states.positions, background.positions])
    decides = positions == 0 if scope == "sequence" else positions >= 0
    if not decides.any():
        return None
    return Met(
        np.concatenate([states.values, background.values])[decides],
        np.concatenate([states.weights, background.weights])[decides],
        np.concatenate([meant, also])[decides],
        (np.arange(len(positions)) >= len(states.values))[decides],
    )


def with_background(layer: GatedLayer, found: Met, most: int, seed: int = 0) -> GatedLayer:
    """The layer with at most `most` concepts of the background, whose rows are zeros.

    They are the centres of K-Means over the background states that are not meant. None are added where none of these
    falls to a concept that is steered.
    """
    others = found.values[found.background & ~found.meant]
    if not most or not len(others) or not layer.active[nearest(others, layer.centroids)].any():
        return layer
    if len(others) > _MOST_CLUSTERED:
        others = others[np.random.default_rng(seed).choice(len(others), _MOST_CLUSTERED, replace=False)]
    k = max(1, min(most, len(others) // _STATES_OF_A_CONCEPT))
    centres = best_clusters(others, k, seed, 10).cluster_centers_.astype(np.float32)
    return GatedLayer(
        np.concatenate([layer.centroids, centres]),
        np.concatenate([layer.rows, np.zeros_like(centres)]),
        (*layer.limits, *(None for _ in centres)),
    )


def own_limits(layer: GatedLayer, values: Float32, gate: Gate, quantile: float) -> tuple[float | None, ...]:
    """For each concept with a row that is not zero the distance within which that share of its own states lies.

    values: float32 [N, D], the states of the dictionary; a concept's own are those that fall to it. Of a concept with
    fewer than 20 the limit is that of the states of all steered concepts together.
    """
    fallen = nearest(values, layer.centroids)
    apart = distances(values, layer.centroids[fallen], gate.metric)
    steered = layer.active
    together = apart[steered[fallen]]
    largest = 2.0 if gate.metric == "cosine" else MAX_LENGTH  # else rounding, or a state of zeros, may leave them
    limits: list[float | None] = []
    for concept in range(len(layer.rows)):
        own = apart[fallen == concept]
        enough = own if len(own) >= _STATES_OF_A_LIMIT else together
        limits.append(min(float(np.quantile(enough, quantile)), largest) if steered[concept] and len(enough) else None)
    return tuple(limits)


def differences(states: LayerStates, dictionary: ConceptDictionary) -> str:
    """What a dictionary was made from that these states were not, as "rule 'a', and the states 'b'"; "" if nothing.

    What one of the two does not record is not compared, but for the prompt: none recorded means the question alone.
    """
    request, made = states.manifest.request, dictionary.provenance
    pairs = {
        "data": (made.dataset_digest, request.data),
        "rule": (made.rule, request.rule),
        "chat template": (made.chat_template, request.chat_template),
        "prompt": (made.prompt or "{question}", request.prompt or "{question}"),
    }
    return "; ".join(
        f"{name} {_shown(one)}, and the states {_shown(other)}"
        for name, (one, other) in pairs.items()
        if one is not None and other is not None and one != other
    )


def _shown(text: str) -> str:
    return repr(text[:12] if len(text) == 64 else text)  # a digest is known by its first digits


def _or_inf(limit: float | None) -> float:
    return np.inf if limit is None else limit
