"""A regression monitor: how far the checkpoints of a fine-tune have moved a model's concepts (docs/method.md §3).

Concept k of the original is held against u_k + Δ_k, the mean of the checkpoint's states over the samples that activate
it: by the words both stand for (T-Overlap, each in its own model's unembedding) and by their cosine. No dictionary is
made of a checkpoint, so no matching can blur the curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.vectors import ConceptDictionary

from ..concepts.grounding import top_words, word_overlap
from ..errors import DataError
from ..findings import DriftFound, TableFound
from ..models.reader import Reader
from ..states.paired import pair_states
from ..states.store import LayerStates
from .deltas import shifts_of
from .matching import cosines
from .study import names_of

__all__ = ["Drift", "Watched", "drift_found", "drift_table"]


@dataclass(frozen=True, eq=False)
class Drift:
    """A checkpoint against the original.

    overlaps: float64 [K], percent. cosines: float64 [K]. Both 0 for a concept without a state in common: it has gone.
    states: how many states both have in common.
    """

    step: int
    overlaps: npt.NDArray[np.float64]
    cosines: npt.NDArray[np.float64]
    states: int

    @property
    def overlap(self) -> float:
        """The mean T-Overlap over concepts, in percent: what a threshold is held against."""
        return float(self.overlaps.mean())

    @property
    def cosine(self) -> float:
        return float(self.cosines.mean())


class Watched:
    """The original model's concepts with their words, kept to hold checkpoints against.

    A concept that stands for no word at all cannot lose one, so it is left out; `names` holds the others.

    Raises:
        SettingError: a dictionary of another model or layer; DataError: no concept stands for any word.
    """

    def __init__(self, states: LayerStates, dictionary: ConceptDictionary, model: Reader) -> None:
        self.dictionary = dictionary
        self.original = model
        self._rows = states
        words = top_words(dictionary.centroids, model)
        self._kept = [k for k, said in enumerate(words) if said]
        if not self._kept:
            raise DataError(
                f"layer {states.layer}: none of the {len(words)} concepts stands for a word; watch a deeper layer"
            )
        names = names_of(dictionary, words)
        self.words = [words[k] for k in self._kept]
        self.names = [names[k] for k in self._kept]

    def drift(self, step: int, states: LayerStates, model: Reader) -> Drift:
        """What a checkpoint did. states: of the checkpoint, by the same rule on the same samples."""
        pairs = pair_states(self._rows, states)
        shifts = shifts_of(pairs, self.dictionary)
        shifted = shifts.shifted()[self._kept]
        here = shifts.counts[self._kept] > 0
        overlaps = [
            word_overlap(ours, theirs) for ours, theirs in zip(self.words, top_words(shifted, model), strict=True)
        ]
        straight = np.diagonal(cosines(shifts.concepts[self._kept], shifted))
        return Drift(step, np.where(here, overlaps, 0.0), np.where(here, straight, 0.0), len(pairs))


def drift_found(watched: Watched, drifts: Sequence[Drift], title: str) -> DriftFound:
    """The curve of every concept and of their mean; the original is step 0, at 100 %."""
    table = np.array([np.full(len(watched.names), 100.0), *(drift.overlaps for drift in drifts)])
    curves = {"mean of all": table.mean(axis=1), **dict(zip(watched.names, table.T, strict=True))}
    silent = len(watched.dictionary.labels) - len(watched.names)
    return DriftFound(
        title=title,
        note=f"{silent} concepts stand for no word and are left out." if silent else "",
        steps=(0, *(drift.step for drift in drifts)),
        curves={name: tuple(float(value) for value in curve) for name, curve in curves.items()},
    )


def drift_table(drifts: Sequence[Drift], title: str) -> TableFound:
    """A line a checkpoint."""
    return TableFound(
        title=title,
        columns=("step", "T-Overlap %", "cosine", "states in common"),
        rows=tuple((drift.step, round(drift.overlap, 2), round(drift.cosine, 4), drift.states) for drift in drifts),
    )
