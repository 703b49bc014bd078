"""The device's token rows: what acts on which row of this step. One a model; the same for all layers.

A step costs the host the same for one armed layer as for thirty, and one copy to the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from trimtab.vectors.asked import MOST_PROFILES

from .batch import ALPHA, NOBODY, SLOT, Ints, decodes, fill_rows
from .decisions import SteeredRequest

__all__ = ["TokenRows"]


class TokenRows(nn.Module):
    """rows: int32 [T_max, 3, MOST_PROFILES], see `batch.Rows`. Those past the step's own are 0."""

    rows: torch.Tensor

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(capacity, 3, MOST_PROFILES, dtype=torch.int32), persistent=False)
        self._staged = np.zeros((capacity, 3, MOST_PROFILES), np.int32)
        self._used = 0
        self._repeatable: tuple[Sequence[SteeredRequest | None], Ints] | None = None
        self._probing = False
        # Compiled now, not in the first step.
        nobody = np.zeros((3, 0), np.int32)
        fill_rows(self._staged, [], nobody[0], nobody[1])
        decodes(*nobody)

    def fill(self, batch: Sequence[SteeredRequest | None], computed: Ints, scheduled: Ints) -> None:
        """Set this step's rows from its final batch of N requests.

        Most steps decode one more token of the same requests: their rows are those that stand here already, and are
        left so.

        Args:
            batch: in the order of the step's rows; None is unsteered.
            computed: int [N], tokens of each request that lie before this step.
            scheduled: int [N], tokens of each request in this step.
        """
        if self._probing:
            return
        if not any(batch):
            self._repeatable = None
            self._clear_from(0)
            return
        if self._repeatable is not None:
            before, reached = self._repeatable
            if before is batch and decodes(computed, scheduled, reached):
                return
        packed = [NOBODY if request is None else request.packed for request in batch]
        if self.rows.device.type == "cpu":
            used, repeats = fill_rows(self.rows.numpy(), packed, computed, scheduled)
        else:
            used, repeats = fill_rows(self._staged, packed, computed, scheduled)
            if used:
                # A pageable copy would wait for the step before to end.
                self.rows[:used].copy_(torch.from_numpy(self._staged[:used]).pin_memory(), non_blocking=True)
        self._clear_from(used)
        self._repeatable = (batch, computed.copy()) if repeats else None

    def _clear_from(self, used: int) -> None:
        """Clear what the last step left beyond this step's rows, which a padded batch would read."""
        if self._used > used:
            self.rows[used : self._used].zero_()
        self._used = used

    @contextmanager
    def probing(self, slot: int) -> Iterator[None]:
        """For the self-check: let a slot act with strength 1 on every row of dummy batches."""
        self._probing = True
        self.rows[:, SLOT, 0] = slot
        self.rows[:, ALPHA, 0] = int(np.float32(1).view(np.int32))
        try:
            yield
        finally:
            self.rows.zero_()
            self._used = 0
            self._repeatable = None
            self._probing = False
