"""The rows of two models, paired: the same sample, read at the same place by the same rule (docs/method.md §3).

A model and its fine-tune answer in their own words, so a position of the one need not mean what that position of the
other means. Rows are therefore paired by what they stand for: where a rule keeps words, the first "man" of a sample's
one answer goes with the first "man" of its other answer; where it keeps one row a sample, sample goes with sample.
What has no counterpart is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.vectors import ModelIdentity

from ..errors import SettingError
from .store import Int64, LayerStates

__all__ = ["Pairs", "check_comparable", "pair_states"]

Key = tuple[str, str, int]
_SAME = ("data", "samples", "rule", "dtype", "max_new_tokens")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows of a model (a) and of its fine-tune (b): row m of the one belongs to row m of the other.

    left_out: rows of a and of b that have no counterpart.
    """

    a: LayerStates
    b: LayerStates
    left_out: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.a.values)

    @property
    def shifts(self) -> npt.NDArray[np.float64]:
        """δ_m = b_m - a_m, float64 [M, D]."""
        return self.b.values.astype(np.float64) - self.a.values

    def swapped(self) -> Pairs:
        """The way back, from the fine-tune to the original."""
        return Pairs(self.b, self.a, self.left_out[::-1])

    def halves(self, seed: int) -> tuple[Pairs, Pairs]:
        """Two halves of the samples, drawn by seed; a sample's rows stay together.

        Raises:
            SettingError: fewer than two samples.
        """
        samples = sorted(set(self.a.sample_ids))
        if len(samples) < 2:
            raise SettingError(f"{len(samples)} sample is in both; halves need 2 or more, so represent more samples")
        order = np.random.default_rng(seed).permutation(len(samples))
        first = {samples[i] for i in order[: (len(samples) + 1) // 2]}
        chosen = np.array([sample in first for sample in self.a.sample_ids])
        return self._of(np.flatnonzero(chosen)), self._of(np.flatnonzero(~chosen))

    def _of(self, indices: Int64) -> Pairs:
        return Pairs(self.a.take(indices), self.b.take(indices), self.left_out)


def pair_states(a: LayerStates, b: LayerStates) -> Pairs:
    """The rows that two models have in common, in a's order.

    Raises:
        SettingError: models of different form, other samples, another rule or layer, or no common row at all.
    """
    check_comparable(a.manifest.request.model, b.manifest.request.model)
    if a.layer != b.layer:
        raise SettingError(f"rows of layer {a.layer} cannot be compared with rows of layer {b.layer}; load one layer")
    for name in _SAME:
        ours, theirs = (getattr(rows.manifest.request, name) for rows in (a, b))
        if ours != theirs:
            raise SettingError(
                f"the two sets of rows differ in their {name.replace('_', ' ')} ({ours} and {theirs}); "
                "represent both models with the same samples and settings"
            )
    place = {key: i for i, key in enumerate(_keys(b))}
    pairs = [(i, place[key]) for i, key in enumerate(_keys(a)) if key in place]
    if not pairs:
        raise SettingError("the two models have no row in common: no answer of both holds what the rule keeps")
    first, second = np.array(pairs, np.int64).T
    return Pairs(a.take(first), b.take(second), (len(a.values) - len(first), len(b.values) - len(first)))


def check_comparable(a: ModelIdentity, b: ModelIdentity) -> None:
    """Passes when both models have one architecture and size.

    Raises:
        SettingError: names what differs.
    """
    for name in ("architecture", "hidden_size", "num_layers"):
        ours, theirs = getattr(a, name), getattr(b, name)
        if ours != theirs:
            raise SettingError(
                f"the models differ in their {name.replace('_', ' ')} ({ours} and {theirs}); "
                "a shift is between a model and its own fine-tune"
            )


def _keys(rows: LayerStates) -> Iterator[Key]:
    """Sample, word and how many of that word came before it in the sample; no word where a sample has but one row."""
    by_word = rows.manifest.request.rule.startswith("predicts:")
    seen: Counter[tuple[str, str]] = Counter()
    for sample, label in zip(rows.sample_ids, rows.labels, strict=True):
        word = label if by_word else ""
        yield sample, word, seen[sample, word]
        seen[sample, word] += 1
