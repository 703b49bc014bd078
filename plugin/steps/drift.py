"""How far the concepts of live traffic are from those that a profile expects: the population stability index.

    PSI = Σ_k (p_k − q_k) ln(p_k / q_k)      p: live shares, q: expected shares; 0 where they are the same

By the usual reading, below 0.1 nothing has changed, and above 0.25 much has. Both shares get half a request per bin
first, so that a bin that is empty on one side makes no infinity.

By chance alone the index of n requests and B bins is about B / n: the positions of one answer are alike, so that
requests count here, not positions. A window has 50 requests per bin, and so an index of about 0.02 by chance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Counts", "Window", "stability_index"]

Counts = npt.NDArray[np.int64]
"""[K + 1]: how often a gate chose each concept, and last how often the nearest one was too far."""

_FEWEST, _PER_BIN = 1000, 50
_STEPS = 20  # by which a window moves on


def stability_index(counts: Counts, expected: Sequence[float], requests: int) -> float:
    """The index of the counts of some requests. expected: K shares; what they lack to 1 is too far from each concept.

    Raises:
        ValueError: nothing was counted.
    """
    if not counts.sum():
        raise ValueError("nothing was counted, so there are no shares to compare")
    bins = len(counts)
    half = 0.5 / requests
    wanted = np.append(expected, max(0.0, 1.0 - float(np.sum(expected))))
    p, q = ((shares + half) / (shares.sum() + bins * half) for shares in (counts / counts.sum(), wanted))
    return float(((p - q) * np.log(p / q)).sum())


class Window:
    """The counts of the last requests: of 50 per bin, and of at least 1,000. It moves on by a twentieth at a time.

    bins: K + 1.
    """

    def __init__(self, bins: int) -> None:
        self.size = max(_FEWEST, _PER_BIN * bins)
        """In requests."""
        self._blocks: deque[tuple[int, Counts]] = deque()
        self._open = (0, np.zeros(bins, np.int64))

    def add(self, requests: int, counts: Counts) -> None:
        """Add what was counted since the last time, and how many requests came."""
        self._open = (self._open[0] + requests, self._open[1] + counts)
        if self._open[0] >= self.size / _STEPS:
            self._blocks.append(self._open)
            self._open = (0, np.zeros_like(counts))
        while self._blocks and self.requests - self._blocks[0][0] >= self.size:
            self._blocks.popleft()

    @property
    def requests(self) -> int:
        """How many the window holds."""
        return self._open[0] + sum(requests for requests, _ in self._blocks)

    def index(self, expected: Sequence[float]) -> float | None:
        """The index of its counts; None while it holds too few requests, or none whose gate has decided."""
        counts: Counts = self._open[1] + sum((counts for _, counts in self._blocks), np.zeros_like(self._open[1]))
        return (
            None if self.requests < self.size or not counts.any() else stability_index(counts, expected, self.requests)
        )
