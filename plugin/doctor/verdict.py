"""What the figures of a trial say: proven, differs, or unclear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Layer", "Verdict", "judge"]

Float32 = npt.NDArray[np.float32]
Status = Literal["proven", "differs", "unclear"]

EQUAL = {"float32": 1e-3}
"""The largest difference of two log-probabilities that are called equal, by the model's dtype."""
EQUAL_IN_HALF = 0.25
SHOWS = 4
"""An addition has to move a log-probability by so many times what counts as equal."""


@dataclass(frozen=True)
class Layer:
    """An addition after one layer. difference: of vLLM from transformers; effect: of the addition, in transformers.

    Both are the largest over the vocabulary, in log-probability.
    """

    number: int
    difference: float
    effect: float


@dataclass(frozen=True)
class Verdict:
    """unsteered: how far vLLM is from transformers with nothing added. bound: what counts as equal."""

    status: Status
    reason: str
    unsteered: float
    bound: float
    layers: tuple[Layer, ...]


def judge(served: Mapping[int | None, Float32], expected: Mapping[int | None, Float32], dtype: str) -> Verdict:
    """Compare log-probabilities [V] of the next token: with nothing added under None, with a vector under its layer."""
    bound = EQUAL.get(dtype, EQUAL_IN_HALF)
    unsteered = _distance(served[None], expected[None])
    layers = tuple(
        Layer(number, _distance(served[number], expected[number]), _distance(expected[number], expected[None]))
        for number in expected
        if number is not None
    )
    return Verdict(*_said(unsteered, layers, bound), unsteered, bound, layers)


def _said(unsteered: float, layers: tuple[Layer, ...], bound: float) -> tuple[Status, str]:
    if not unsteered <= bound:
        return "differs", "vLLM and transformers do not agree on this model before anything is added"
    if wrong := [layer.number for layer in layers if not layer.difference <= bound]:
        return "differs", f"with a vector added after layer {', '.join(map(str, wrong))} vLLM and transformers differ"
    if weak := [layer.number for layer in layers if layer.effect < SHOWS * bound]:
        return (
            "unclear",
            f"the vector after layer {', '.join(map(str, weak))} changes too little to be told from rounding",
        )
    return "proven", "vLLM with trimtab and transformers with the same vector added agree"


def _distance(one: Float32, other: Float32) -> float:
    size = min(len(one), len(other))  # vLLM leaves out what a vocabulary is padded with
    return float(np.abs(one[:size].astype(np.float64) - other[:size]).max())
