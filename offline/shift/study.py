"""The study of a shift, whole: from the states of a model and its fine-tune to what a report shows (docs/method.md §3).

The samples are halved by seed. On the first half the dictionaries of both models, the Δ_k, the matching, the recovery
and the correlations are found, as the paper does; the other half serves the controls, and the recovery once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from trimtab.vectors import ConceptDictionary

from ..concepts.grounding import top_words, word_overlap
from ..concepts.kmeans import kmeans
from ..findings import ConceptShift, Measured, ShiftFound
from ..states.paired import Pairs
from ..statistics import correlation, mean
from .controls import control_cosines
from .deltas import ConceptShifts, Recovered, recovered, shifts_of

if TYPE_CHECKING:
    from ..models.reader import Reader

__all__ = ["Study", "names_of", "study_shift"]

Float64 = npt.NDArray[np.float64]
Words = list[tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Study:
    """What was found, and the dictionaries of both models (of the first half) that it was found with."""

    found: ShiftFound
    base: ConceptDictionary
    tuned: ConceptDictionary


def study_shift(
    pairs: Pairs, base: Reader, tuned: Reader, *, k: int = 20, seed: int = 0, alpha: float = 1.0, title: str = ""
) -> Study:
    """K concepts of `base`, and what became of them in `tuned`.

    pairs: states of both. alpha: of u_k + α Δ_k; the controls are at α = 1.

    Raises:
        SettingError: k beyond the states of a half; readers of other models than the states'.
    """
    fit, rest = pairs.halves(seed)
    dictionary, target, held_out = kmeans(fit.a, k, seed), kmeans(fit.b, k, seed), kmeans(rest.b, k, seed)
    shifts = shifts_of(fit, dictionary)
    back = recovered(shifts, target, alpha)
    unseen = recovered(shifts, held_out, alpha)
    controls = control_cosines(fit, shifts, target, held_out, seed)
    words = (
        top_words(shifts.concepts, base),
        top_words(shifts.shifted(alpha), tuned),
        top_words(target.centroids, tuned),
    )
    found = ShiftFound(
        title=title or f"What the fine-tune did to {len(dictionary.labels)} concepts, layer {dictionary.layer}",
        note=_note(fit, rest, alpha),
        layer=dictionary.layer,
        concepts=_concepts(shifts, back, dictionary, target, words, alpha),
        correlations=_correlations(shifts, back, unseen, seed),
        controls={name: mean(values, seed) for name, values in controls.items()},
    )
    return Study(found, dictionary, target)


def names_of(dictionary: ConceptDictionary, words: Words) -> list[str]:
    """What to call each concept: its label, else its first word, else its number; numbered where a name comes again."""
    names: list[str] = []
    for number, (label, said) in enumerate(zip(dictionary.labels, words, strict=True)):
        name = label or (said[0] if said else f"concept {number}")
        again = sum(known == name or known.startswith(f"{name} (") for known in names)
        names.append(f"{name} ({again + 1})" if again else name)
    return names


def _concepts(
    shifts: ConceptShifts,
    back: Recovered,
    dictionary: ConceptDictionary,
    target: ConceptDictionary,
    words: tuple[Words, Words, Words],
    alpha: float,
) -> tuple[ConceptShift, ...]:
    before, after, theirs = words
    names, their_names = names_of(dictionary, before), names_of(target, theirs)
    shifted = shifts.shifted(alpha)
    at, moved, matched = _in_the_plane(shifts.concepts, shifted, target.centroids.astype(np.float64))
    return tuple(
        ConceptShift(
            label=names[k],
            rows=int(shifts.counts[k]),
            magnitude=float(shifts.magnitude[k]),
            consistency=float(shifts.consistency[k]),
            pairwise_consistency=float(shifts.pairwise[k]),
            match=their_names[match],
            cosine_before=float(back.before[k]),
            cosine_after=float(back.after[k]),
            recovery=None if np.isnan(back.recovery[k]) else float(back.recovery[k]),
            overlap_before=word_overlap(theirs[match], before[k]),
            overlap_after=word_overlap(theirs[match], after[k]),
            words_before=before[k],
            words_after=after[k],
            words_match=theirs[match],
            at=at[k],
            shifted=moved[k],
            match_at=matched[match],
        )
        for k, match in enumerate(back.match)
    )


def _correlations(shifts: ConceptShifts, back: Recovered, unseen: Recovered, seed: int) -> dict[str, Measured]:
    sides = {
        "consistency": shifts.consistency,
        "pairwise consistency": shifts.pairwise,
        "magnitude": shifts.magnitude,
    }
    found = {
        f"{name} and recovery{where}": correlation(values, outcome.recovery, seed)
        for where, outcome in (("", back), (", held out", unseen))
        for name, values in sides.items()
    }
    return {name: measured for name, measured in found.items() if measured is not None}


def _in_the_plane(*sets: Float64) -> list[list[tuple[float, float]]]:
    """The first two principal components of all vectors together, set by set."""
    together = np.concatenate(sets)
    points = np.zeros((len(together), 2))
    count = min(2, *together.shape)
    points[:, :count] = PCA(count, svd_solver="full").fit_transform(together)
    stops = np.cumsum([len(one) for one in sets])[:-1]
    return [[(float(x), float(y)) for x, y in part] for part in np.split(points, stops)]


def _note(fit: Pairs, rest: Pairs, alpha: float) -> str:
    a, b = fit.left_out
    return (
        f"α = {alpha:g}. Found on {len(fit):,} pairs of states; controls on {len(rest):,} pairs of other samples, "
        f"centred by the mean of the fine-tune's states. {a:,} states of the original and {b:,} of the fine-tune have "
        "no counterpart and were left out."
    )
