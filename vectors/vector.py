"""A steering vector: a direction in the residual stream after one decoder block, with the algebra that it allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt

from .arrays import Float32, finite_float32, frozen_float32
from .errors import VectorError


@dataclass(frozen=True, eq=False, init=False)
class SteeringVector:
    """What is added to the residual stream after decoder block `layer` (0-based).

    values: float32 [D], finite, read-only; in units of the residual stream, so that alpha = 1 adds it as it is.

    Vectors of one layer and one size form a vector space: +, -, * and / by a finite number.

    Raises:
        VectorError: a negative layer, a shape other than [D], a number that is not finite (also as a result of
            the algebra), or two operands of different layers or sizes.
    """

    layer: int
    values: Float32

    __array_ufunc__ = None  # so that np.float32(2) * vector comes to __rmul__ and not to numpy's broadcasting

    def __init__(self, layer: int, values: npt.ArrayLike) -> None:
        if isinstance(layer, bool) or not isinstance(layer, int | np.integer) or layer < 0:
            raise VectorError(f"layer is {layer!r}; expected a decoder layer index, 0 or more")
        object.__setattr__(self, "layer", int(layer))
        object.__setattr__(self, "values", frozen_float32(values, 1, "a steering vector"))

    @classmethod
    def between(cls, original: npt.ArrayLike, target: npt.ArrayLike, layer: int) -> SteeringVector:
        """mean(target) - mean(original), the coarse vector of arXiv 2501.03012 (docs/method.md §4).

        original: [N, D], target: [M, D], states after block `layer`, chosen by one rule. Means are taken in float64, so
        that the result does not depend on the number of states that share it.
        """
        a, b = (finite_float32(rows, 2, what) for rows, what in ((original, "original"), (target, "target")))
        if a.shape[1] != b.shape[1]:
            raise VectorError(f"original rows have size {a.shape[1]} and target rows {b.shape[1]}; they must agree")
        difference = b.mean(axis=0, dtype=np.float64) - a.mean(axis=0, dtype=np.float64)
        return cls(layer, difference.astype(np.float32))

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self.values.shape[0])

    @property
    def norm(self) -> float:
        """Euclidean length, accumulated in float64."""
        return float(np.linalg.norm(self.values.astype(np.float64)))

    def cosine(self, other: SteeringVector) -> float:
        """Cosine of the angle between the two, in [-1, 1].

        Raises:
            VectorError: different layers or sizes, or one of them is zero and has no direction.
        """
        self._check_same_space(other)
        length = self.norm * other.norm
        if length == 0.0:
            raise VectorError("a zero vector has no direction; its cosine with another is undefined")
        dot = float(self.values.astype(np.float64) @ other.values.astype(np.float64))
        return max(-1.0, min(1.0, dot / length))

    def __add__(self, other: SteeringVector) -> SteeringVector:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        self._check_same_space(other)
        with np.errstate(over="ignore"):
            return SteeringVector(self.layer, self.values + other.values)

    def __sub__(self, other: SteeringVector) -> SteeringVector:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        self._check_same_space(other)
        with np.errstate(over="ignore"):
            return SteeringVector(self.layer, self.values - other.values)

    def __mul__(self, alpha: float) -> SteeringVector:
        if not _is_number(alpha):
            return NotImplemented
        with np.errstate(over="ignore", under="ignore"):
            return SteeringVector(self.layer, self.values * np.float32(_finite(alpha)))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> SteeringVector:
        if not _is_number(divisor):
            return NotImplemented
        if divisor == 0:
            raise VectorError("a steering vector cannot be divided by zero")
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            return SteeringVector(self.layer, self.values / np.float32(_finite(divisor)))

    def __neg__(self) -> SteeringVector:
        return SteeringVector(self.layer, -self.values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        return self.layer == other.layer and np.array_equal(self.values, other.values)

    __hash__ = None  # type: ignore[assignment]  # equal vectors may differ in bits (0.0 and -0.0)

    def __repr__(self) -> str:
        return f"SteeringVector(layer={self.layer}, hidden_size={self.hidden_size}, norm={self.norm:.4g})"

    def _check_same_space(self, other: SteeringVector) -> None:
        if self.layer != other.layer:
            raise VectorError(f"vectors of layers {self.layer} and {other.layer} do not live in the same space")
        if self.hidden_size != other.hidden_size:
            raise VectorError(f"vectors of sizes {self.hidden_size} and {other.hidden_size} cannot be combined")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise VectorError(f"a steering vector can be scaled by finite numbers only, not by {value}")
    return float(value)
