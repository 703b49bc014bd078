"""The entries on the device: what acts on each token of this step. One for a model; all layers read the same.

A step costs the host the same for one armed layer as for thirty, and one copy to the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from trimtab.vectors.asked import MOST_PROFILES

from .batch import ALPHA, SLOT, Ints, decodes, fill_entries, whole
from .decisions import SteeredRequest
from .lost import StepMarks

__all__ = ["TokenEntries"]


@dataclass(slots=True)
class _Standing:
    """What stands in the entries: apart from the module, whose every assignment goes through torch and takes 3 µs."""

    used: int = 0
    """How many may act."""
    repeatable: tuple[Sequence[SteeredRequest | None], Ints] | None = None
    """The batch that may find its own entries there, and the tokens that it must have reached."""
    acting: tuple[Sequence[SteeredRequest | None], Ints] = ((), np.zeros(0, np.int32))
    """The batch whose entries they are, and the tokens that each request has there."""
    probing: bool = False


class TokenEntries(nn.Module):
    """entries: int32 [T_max, 3, MOST_PROFILES], see `batch.Entries`. Those past the step's own are 0.
    lost: uint8 [T_max], where the op marks tokens, see `op.steer`."""

    entries: torch.Tensor
    lost: torch.Tensor

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.register_buffer("entries", torch.zeros(capacity, 3, MOST_PROFILES, dtype=torch.int32), persistent=False)
        self.register_buffer("lost", torch.zeros(capacity, dtype=torch.uint8), persistent=False)
        self._on_host = self.entries.device.type == "cpu"
        # On a CPU the host writes where the layers read.
        self._staged = self.entries if self._on_host else torch.zeros_like(self.entries, device="cpu")
        self._whole = whole(self._staged.numpy())
        self._standing = _Standing()

    def fill(self, batch: Sequence[SteeredRequest | None], computed: Ints, scheduled: Ints) -> None:
        """Set this step's entries from its final batch of N requests.

        Most steps decode one more token of the same requests: their entries are those that stand here already, and
        are left so.

        Args:
            batch: in the order of the step's tokens; None is unsteered.
            computed: int [N], tokens of each request that lie before this step.
            scheduled: int [N], tokens of each request in this step.
        """
        standing = self._standing
        if standing.probing:
            return
        if not any(batch):
            self.clear()
            return
        if standing.repeatable is not None:
            before, reached = standing.repeatable
            if before is batch and decodes(computed, scheduled, reached):
                return
        used, repeats = fill_entries(self._whole, batch, computed, scheduled)
        self._send(used)
        self._clear_from(used)
        standing.repeatable = (batch, computed.copy()) if repeats else None
        standing.acting = (batch, scheduled.copy())

    def marks(self) -> StepMarks | None:
        """What the layers of this step have marked, or will have by the step's end on a GPU; None for nothing."""
        used = self._standing.used
        if not used:
            return None
        if self.lost.is_cpu:
            # Asked in every step: a search of bytes takes a third of what numpy's `any` does.
            is_lost = 1 in self.lost.numpy()[:used].tobytes()
            return StepMarks(self.lost[:used].clone(), *self._standing.acting) if is_lost else None
        # The copy follows the layers, and comes before that of the step's tokens, which vLLM waits for.
        return StepMarks(self.lost[:used].to("cpu", non_blocking=True), *self._standing.acting)

    def clear(self) -> None:
        """Let nothing act, as a batch that no step describes needs it: a dummy run would decide for the last step's
        requests once more, over what its own tokens hold. Not while probing."""
        if not self._standing.probing:
            self._standing.repeatable = None
            self._clear_from(0)

    def _send(self, used: int) -> None:
        """Bring to the device what the host has written."""
        if used and not self._on_host:
            # A pageable copy would wait for the step before to end.
            self.entries[:used].copy_(self._staged[:used].pin_memory(), non_blocking=True)

    def _clear_from(self, used: int) -> None:
        """Clear what the last step left beyond this step's entries, which a padded batch would read."""
        if self._standing.used > used:
            self.entries[used : self._standing.used].zero_()
        self._standing.used = used

    @contextmanager
    def probing(self, slot: int) -> Iterator[None]:
        """For the self-check: let a slot act with strength 1 on every second token of dummy batches, the first one
        included. It comes to the layers as the entries of steps do, so that the check is of that too."""
        self._standing.probing = True
        self._staged[::2, SLOT, 0] = slot
        self._staged[::2, ALPHA, 0] = int(np.float32(1).view(np.int32))
        self._send(len(self._staged))
        try:
            yield
        finally:
            self._staged.zero_()
            self._send(len(self._staged))
            self._standing = _Standing()
