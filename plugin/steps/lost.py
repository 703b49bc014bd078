"""Which requests of a step have lost what they were to be given.

The op adds nothing where a sum is not a finite number, so that no NaN reaches the cache, and marks the token. A request
with a marked token would be answered unsteered from there on: it must end with an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from .batch import Ints
from .decisions import SteeredRequest

__all__ = ["StepMarks"]


class StepMarks(NamedTuple):
    """The marks of one step. On a GPU they are there once the step's output is."""

    marks: torch.Tensor
    """uint8 [T], on the host; 1 where a token's sum was not finite at some layer."""
    batch: Sequence[SteeredRequest | None]
    scheduled: Ints
    """int [N], tokens of each request in the step."""

    def names(self) -> list[str]:
        """Of the requests that have a marked token, in the order of the batch."""
        tokens = np.flatnonzero(self.marks.numpy())
        places = np.unique(np.searchsorted(np.cumsum(self.scheduled), tokens, side="right"))
        return [request.name for request in (self.batch[place] for place in places.tolist()) if request is not None]
