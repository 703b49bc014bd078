"""Which concept to steer to which: the selection of (i, j) of docs/method.md §4.

    pairs_near     the cheap filter: pairs of concepts that lie near the means of an original and a target set
    pair_profile   s_ij = u_j - u_i as a profile, added where concept i is active
    judge, select  steer a dev set with each, count the answers gained, rank by how concentrated the gain is

Who answers is injected, so that a served endpoint and a model in memory are judged alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from trimtab.vectors import AlphaRange, ConceptDictionary, Profile
from trimtab.vectors.manifest import Provenance

from ..errors import SettingError

__all__ = ["Judged", "Pair", "judge", "pair_profile", "pairs_near", "select"]

S = TypeVar("S")


@dataclass(frozen=True)
class Pair:
    """Concept i of a dictionary is to become concept j; their labels, for people."""

    i: int
    j: int
    original: str
    target: str


@dataclass(frozen=True)
class Judged:
    """What steering by a pair did to the answers of a dev set.

    gains: for each answer whose count changed, its count with steering minus its count without, largest first.
    group: the main group of answers that gained. It ends where the gap to the next gain is largest.
    score: that gap, the smallest gain inside the group minus the largest gain outside it.
    """

    pair: Pair
    gains: tuple[tuple[str, int], ...]
    group: tuple[str, ...]
    score: int

    @property
    def kept(self) -> bool:
        """Whether the gain is concentrated on one answer."""
        return len(self.group) == 1


def pairs_near(dictionary: ConceptDictionary, original: npt.ArrayLike, target: npt.ArrayLike, keep: int) -> list[Pair]:
    """The `keep` pairs (i, j) with the smallest ‖u_i - original‖ + ‖u_j - target‖, nearest first.

    original, target: [D], the means of the two sets of states. Give the same mean twice if any target will do. Pairs
    whose concepts share a label are left out, since they cannot turn one answer into another.

    Raises:
        SettingError: no two concepts with different labels, or keep < 1.
    """
    if keep < 1:
        raise SettingError(f"keep is {keep}; give the number of pairs to try, 1 or more")
    u = dictionary.centroids.astype(np.float64)
    from_original = np.linalg.norm(u - np.asarray(original, np.float64), axis=1)
    from_target = np.linalg.norm(u - np.asarray(target, np.float64), axis=1)
    labels = dictionary.labels
    found = [
        (float(from_original[i] + from_target[j]), i, j)
        for i in range(len(labels))
        for j in range(len(labels))
        if labels[i] != labels[j]
    ]
    if not found:
        raise SettingError("all concepts have one label, so no pair can change an answer; use a larger k")
    return [Pair(i, j, labels[i], labels[j]) for _, i, j in sorted(found)[:keep]]


def pair_profile(
    name: str, dictionary: ConceptDictionary, pair: Pair, *, alpha: AlphaRange | None = None, description: str = ""
) -> Profile:
    """A fine profile whose only row is u_j - u_i, at concept i.

    Raises:
        SettingError: a pair of concepts that the dictionary does not have.
    """
    u = dictionary.centroids
    if not (0 <= pair.i < len(u) and 0 <= pair.j < len(u)):
        raise SettingError(f"the dictionary has concepts 0 to {len(u) - 1}; the pair is {pair.i} → {pair.j}")
    vectors = np.zeros_like(u)
    vectors[pair.i] = u[pair.j] - u[pair.i]
    return Profile.fine(
        name,
        {dictionary.layer: (u, vectors)},
        model=dictionary.model,
        description=description or f"concept {pair.i} ({pair.original}) → concept {pair.j} ({pair.target})",
        alpha=alpha,
        provenance=_provenance(dictionary),
    )


def judge(pair: Pair, before: Sequence[str], after: Sequence[str]) -> Judged:
    """Count what answers gained between two rounds over the same samples."""
    counted = Counter(after)
    counted.subtract(Counter(before))
    gains = sorted(((text, gain) for text, gain in counted.items() if gain), key=lambda one: (-one[1], one[0]))
    gaining = [gain for _, gain in gains if gain > 0]
    # What did not change gained nothing, so the last answer that gained is followed by a zero.
    gaps = [inside - outside for inside, outside in pairwise([*gaining, 0])]
    size = gaps.index(max(gaps)) + 1 if gaps else 0
    return Judged(pair, tuple(gains), tuple(text for text, _ in gains[:size]), max(gaps, default=0))


def select(
    candidates: Mapping[Pair, Profile],
    samples: Sequence[S],
    before: Sequence[str],
    answer: Callable[[Profile, Sequence[S]], Sequence[str]],
) -> list[Judged]:
    """Steer the samples with each candidate; the verdicts, concentrated ones first and by score.

    before: the unsteered answers to `samples`. answer: asks them again with a profile on, in the same order.

    Raises:
        SettingError: `answer` returns another number of answers than there are samples.
    """
    verdicts = []
    for pair, profile in candidates.items():
        after = answer(profile, samples)
        if not len(samples) == len(before) == len(after):
            raise SettingError(
                f"{len(samples)} samples have {len(before)} answers before and {len(after)} with {profile.name}; "
                "each sample needs one of both"
            )
        verdicts.append(judge(pair, before, after))
    return sorted(verdicts, key=lambda one: (not one.kept, -one.score, one.pair.i, one.pair.j))


def _provenance(dictionary: ConceptDictionary) -> Provenance:
    method = f"one pair of concepts, {dictionary.method}, K = {len(dictionary.labels)}"
    return dictionary.provenance.model_copy(update={"method": method})
