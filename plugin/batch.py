"""This step's token rows: which slot and which alpha act on which row of the flattened batch.

Pure numpy, one pass over the batch and none over layers. It is filled only after the step's batch is final; both model
runners describe the batch in the same four arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .request import Steering

__all__ = ["Ints", "token_rows"]

Ints = npt.NDArray[np.integer]


def token_rows(
    steerings: Sequence[Steering | None], slots: dict[str, int], computed: Ints, scheduled: Ints
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Rows of one step, T = scheduled.sum().

    Args:
        steerings: N entries in batch order; None is unsteered.
        slots: profile digest → slot of the tables (≥ 1; slot 0 is "unsteered").
        computed: int [N], tokens of each request that lie before this step.
        scheduled: int [N], tokens of each request in this step.

    Returns:
        slot: int32 [T], 0 where nothing acts. alpha: float32 [T].
    """
    slot = np.array([0 if s is None else slots[s.digest] for s in steerings], dtype=np.int32)
    total = int(scheduled.sum())
    if not slot.any():
        return np.zeros(total, np.int32), np.zeros(total, np.float32)
    alpha = np.array([0.0 if s is None else s.alpha for s in steerings], dtype=np.float32)
    first = np.array([0 if s is None else s.first for s in steerings], dtype=np.int64)

    ends = np.cumsum(scheduled)
    # Row r of a request that starts at row s and had c tokens before stands at position c + (r - s).
    position = np.arange(total) + np.repeat(computed - (ends - scheduled), scheduled)
    steered = position >= np.repeat(first, scheduled)
    return (
        np.where(steered, np.repeat(slot, scheduled), 0).astype(np.int32),
        np.where(steered, np.repeat(alpha, scheduled), 0).astype(np.float32),
    )
