"""Steered requests as a worker holds them, and the decisions that a gate makes once for a whole answer.

With `gate.scope` "sequence" the row chosen at the last prompt position holds for the answer. It lies on the device, an
int32 a layer, at a place that the request has while it is in the batch; the host never reads it, so nothing waits. A
request that leaves the batch and is not finished (preemption) takes its decisions along: when it comes back, the
prompt's last position may come from the prefix cache, and would not be decided again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..requests.request import Steering
from .batch import Ints, entries_of, pack

__all__ = ["Decisions", "SteeredRequest"]


class SteeredRequest:
    """From a request's arrival at the worker to its end. Compared by identity."""

    __slots__ = ("_slots", "_steering", "decided", "kept", "once", "packed", "places")

    def __init__(self, steering: Steering, slots: Mapping[str, int]) -> None:
        self._steering = steering
        self._slots = slots
        self.once = sum(part.once for part in steering.parts)
        """How many of its parts decide once."""
        self.places: tuple[int, ...] = ()
        self.kept: list[torch.Tensor] = []
        """While it is not in the batch: its decisions, int32 [once] of each layer."""
        self.decided = False
        self.note()

    @property
    def decides_at(self) -> int:
        """The position at which its parts that decide once do so: the last one of the prompt."""
        return next(part.spans[0][0] for part in self._steering.parts if part.once)

    def note(self) -> None:
        """Write its entries anew, after its places or what is decided changed."""
        places = iter(self.places or (0,) * self.once)
        sign = 1 if self.decided else -1
        decisions = [sign * next(places) if part.once else 0 for part in self._steering.parts]
        self.packed = pack(entries_of(self._steering, self._slots, decisions))


class Decisions:
    """Who holds which place. Place 0 is nobody's.

    Args:
        layers: int32 [P] of every armed layer. P − 1 is at least the parts of all requests that fit into a batch.
    """

    def __init__(self, layers: Sequence[torch.Tensor], places: int) -> None:
        self._layers = layers
        self._free = list(range(1, places))
        self._holders: list[SteeredRequest] = []
        self._placed: Sequence[SteeredRequest | None] = ()

    def place(self, batch: Sequence[SteeredRequest | None]) -> None:
        """Give places to the requests of this step's batch, and take them from those that are not in it."""
        if batch is self._placed:
            return
        self._placed = batch
        present = [request for request in batch if request is not None and request.once]
        if present == self._holders:
            return
        staying = set(present)
        for request in self._holders:
            if request not in staying:
                self._take_from(request)
        for request in present:
            if not request.places:
                self._give_to(request)
        self._holders = present

    def note_made(self, batch: Sequence[SteeredRequest | None], reached: Ints) -> None:
        """After a step's rows are set: who has had its last prompt position, before `reached` [N], has decided."""
        for request, end in zip(batch, reached, strict=True):
            if request is not None and request.once and not request.decided and end > request.decides_at:
                request.decided = True
                request.note()

    @property
    def held(self) -> bool:
        """Whether any request of the batch decides once."""
        return bool(self._holders)

    def _take_from(self, request: SteeredRequest) -> None:
        if request.decided:
            at = list(request.places)
            request.kept = [decisions[at] for decisions in self._layers]
        self._free += request.places
        request.places = ()

    def _give_to(self, request: SteeredRequest) -> None:
        request.places = tuple(self._free.pop() for _ in range(request.once))
        for decisions, kept in zip(self._layers, request.kept, strict=False):
            decisions[list(request.places)] = kept
        request.kept = []
        request.note()
