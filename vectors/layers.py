"""What a profile adds at one layer: one vector, or one for each concept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import Float32, frozen_float32
from .errors import VectorError


@dataclass(frozen=True, eq=False)
class CoarseLayer:
    """One vector for every steered position. vector: float32 [D], read-only."""

    vector: Float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "vector", frozen_float32(self.vector, 1, "vector"))

    @property
    def named(self) -> dict[str, Float32]:
        """The arrays by the last part of their names on disk."""
        return {"vector": self.vector}

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self.vector.shape[0])

    @property
    def rows(self) -> int:
        """How many rows this layer takes in a table: 1."""
        return 1

    @property
    def norm(self) -> float:
        """‖vector‖."""
        return _longest(self.vector[None])


@dataclass(frozen=True, eq=False)
class FineLayer:
    """Row k of `vectors` is added where row k of `centroids` is the nearest; a zero row leaves its concept alone.

    centroids, vectors: float32 [K, D], read-only.
    """

    centroids: Float32
    vectors: Float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "centroids", frozen_float32(self.centroids, 2, "centroids"))
        object.__setattr__(self, "vectors", frozen_float32(self.vectors, 2, "vectors"))
        if self.centroids.shape != self.vectors.shape:
            raise VectorError(
                f"centroids have shape {self.centroids.shape} and vectors {self.vectors.shape}; they must agree"
            )

    @property
    def named(self) -> dict[str, Float32]:
        """The arrays by the last part of their names on disk."""
        return {"centroids": self.centroids, "vectors": self.vectors}

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self.vectors.shape[1])

    @property
    def rows(self) -> int:
        """K."""
        return int(self.vectors.shape[0])

    @property
    def norm(self) -> float:
        """The length of the longest row of `vectors`."""
        return _longest(self.vectors)


Layer = CoarseLayer | FineLayer


def _longest(rows: Float32) -> float:
    return float(np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1)).max())
