"""Steered requests as a worker holds them, and the decisions that a gate makes once for a whole answer.

With `gate.scope` "sequence" the row chosen at the last prompt position holds for the answer. It lies on the device, one
int32 per layer, in a decision slot that the request has while it is in the batch; the host never reads it, so nothing
waits. A request that leaves the batch and is not finished (preemption) takes its decisions along: when it comes back,
the prompt's last position may come from the prefix cache, and would not be decided again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..requests.request import Steering
from .batch import Ints
from .segments import segments_of

__all__ = ["Decisions", "SteeredRequest"]


class SteeredRequest:
    """From a request's arrival at the worker to its end. Compared by identity."""

    __slots__ = ("_slots", "_steering", "decided", "decision_slots", "gates", "kept", "name", "segments")

    def __init__(self, steering: Steering, slots: Mapping[str, int], name: str = "") -> None:
        self._steering = steering
        self._slots = slots
        self.name = name
        self.gates = sum(part.once for part in steering.parts)
        """How many of its parts decide once for the whole answer."""
        self.decision_slots: tuple[int, ...] = ()
        """One for each of these parts while the request is in the batch."""
        self.kept: list[torch.Tensor] = []
        """While it is not in the batch: its decisions, int32 [gates] of each layer."""
        self.decided = False
        self.note()

    @property
    def decides_at(self) -> int:
        """The position at which its gates decide: the last one of the prompt."""
        return next(part.spans[0][0] for part in self._steering.parts if part.once)

    def note(self) -> None:
        """Write its segments again, after its decision slots or `decided` changed."""
        slots = iter(self.decision_slots or (0,) * self.gates)
        sign = 1 if self.decided else -1
        decisions = [sign * next(slots) if part.once else 0 for part in self._steering.parts]
        self.segments = segments_of(self._steering, self._slots, decisions)


class Decisions:
    """Assigns decision slots to the requests of a batch. Slot 0 is never assigned.

    Args:
        layers: int32 [P] of every armed layer. P − 1 is at least the parts of all requests that fit into a batch.
        slots: P.
    """

    def __init__(self, layers: Sequence[torch.Tensor], slots: int) -> None:
        self._layers = layers
        self._free = list(range(1, slots))
        self._holders: list[SteeredRequest] = []
        self._batch: Sequence[SteeredRequest | None] = ()

    def assign(self, batch: Sequence[SteeredRequest | None]) -> None:
        """Give slots to the requests of this step's batch, after taking them from those that have left it."""
        if batch is self._batch:
            return
        self._batch = batch
        present = [request for request in batch if request is not None and request.gates]
        if present == self._holders:
            return
        staying = set(present)
        for request in self._holders:
            if request not in staying:
                self._take_from(request)
        for request in present:
            if not request.decision_slots:
                self._give_to(request)
        self._holders = present

    def note_made(self, batch: Sequence[SteeredRequest | None], reached: Ints) -> None:
        """After a step's entries are set: a request whose last prompt position is below `reached` [N] has decided."""
        for request, end in zip(batch, reached, strict=True):
            if request is not None and request.gates and not request.decided and end > request.decides_at:
                request.decided = True
                request.note()

    @property
    def assigned(self) -> bool:
        """Whether any request of the batch has a decision slot."""
        return bool(self._holders)

    def _take_from(self, request: SteeredRequest) -> None:
        if request.decided:
            at = list(request.decision_slots)
            request.kept = [decisions[at] for decisions in self._layers]
        self._free += request.decision_slots
        request.decision_slots = ()

    def _give_to(self, request: SteeredRequest) -> None:
        request.decision_slots = tuple(self._free.pop() for _ in range(request.gates))
        for decisions, kept in zip(self._layers, request.kept, strict=False):
            decisions[list(request.decision_slots)] = kept
        request.kept = []
        request.note()
