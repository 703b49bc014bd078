"""Pairs of states, one from a model and one from its fine-tune (docs/method.md §3).

The two models may answer differently, so equal positions need not mean the same. States are therefore paired by what
they stand for. If the rule keeps words, the first "man" in one model's answer to a sample is paired with the first
"man" in the other's. If it keeps one state per sample, the two states of a sample are a pair. States without a
counterpart are left out and counted.
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
_SAME = ("data", "samples", "rule", "dtype", "max_new_tokens", "prompt", "labels")


@dataclass(frozen=True, eq=False)
class Pairs:
    """States of a model (a) and of its fine-tune (b): state m of a is paired with state m of b.

    left_out: how many states of a and of b have no counterpart.
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
        """Two halves of the samples, drawn by seed; a sample's states stay together.

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
        return Pairs(self.a.at(indices), self.b.at(indices), self.left_out)


def pair_states(a: LayerStates, b: LayerStates) -> Pairs:
    """The states that two models have in common, in a's order.

    Raises:
        SettingError: models of different form, other samples, another rule or layer, or no common state at all.
    """
    check_comparable(a.manifest.request.model, b.manifest.request.model)
    if a.layer != b.layer:
        raise SettingError(
            f"states of layer {a.layer} cannot be compared with states of layer {b.layer}; load one layer"
        )
    for name in _SAME:
        ours, theirs = (getattr(states.manifest.request, name) for states in (a, b))
        if ours != theirs:
            raise SettingError(
                f"the two sets of states differ in their {name.replace('_', ' ')} ({ours} and {theirs}); "
                "represent both models with the same samples and settings"
            )
    if a.manifest.request.labels is not None and _by_word(a):
        raise SettingError(
            f"states labelled by {a.manifest.request.labels!r} cannot be paired: the rule "
            f"{a.manifest.request.rule!r} keeps several states per sample, which their words pair; "
            "represent with --label answer"
        )
    place = {key: i for i, key in enumerate(_keys(b))}
    pairs = [(i, place[key]) for i, key in enumerate(_keys(a)) if key in place]
    if not pairs:
        raise SettingError("the two models have no state in common: no answer of both holds what the rule keeps")
    first, second = np.array(pairs, np.int64).T
    return Pairs(a.at(first), b.at(second), (len(a.values) - len(first), len(b.values) - len(first)))


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


def _by_word(states: LayerStates) -> bool:
    return states.manifest.request.rule.startswith("predicts:")


def _keys(states: LayerStates) -> Iterator[Key]:
    """For each state its sample, its word, and how often that word came before in the sample.

    The word is empty if the rule keeps one state per sample.
    """
    by_word = _by_word(states)
    seen: Counter[tuple[str, str]] = Counter()
    for sample, label in zip(states.sample_ids, states.labels, strict=True):
        word = label if by_word else ""
        yield sample, word, seen[sample, word]
        seen[sample, word] += 1
