"""How much a coarse vector depends on the samples that it was made from (docs/method.md §4: 50 are enough)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from trimtab.vectors import SteeringVector

from ..errors import SettingError
from ..states.store import LayerStates

__all__ = ["cosines", "draws"]


def draws(states: LayerStates, originals: set[str], targets: set[str], size: int, seed: int) -> list[SteeringVector]:
    """Coarse vectors, each from its own draw of `size` states: half originals, half targets, as many draws as fit.

    Raises:
        SettingError: a size that is odd or below 2, or fewer states than two draws need.
    """
    if size < 2 or size % 2:
        raise SettingError(f"a draw of {size} states has no equal halves; give an even number, 2 or more")
    rng = np.random.default_rng(seed)
    half = size // 2
    first, second = (rng.permutation(np.flatnonzero(states.of(words))) for words in (originals, targets))
    count = min(len(first), len(second)) // half
    if count < 2:
        raise SettingError(
            f"{len(first)} original and {len(second)} target states give {count} draws of {size}; "
            "represent more samples"
        )
    parts = [slice(at * half, (at + 1) * half) for at in range(count)]
    return [
        SteeringVector.between(states.values[first[part]], states.values[second[part]], states.layer) for part in parts
    ]


def cosines(vectors: Sequence[SteeringVector]) -> list[float]:
    """The cosine of every two of them."""
    return [a.cosine(b) for a, b in combinations(vectors, 2)]
