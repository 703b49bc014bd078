"""The tables of the loaded profiles on the device: allocated once at start, afterwards only written in place.

One `LayerTable` per armed layer holds the tensors of all profiles in flat rows; a slot says where a profile's rows
begin and how they are read. All tensors are registered buffers, because sleep level 2 restores nothing else, and have
their dtypes by name, because vLLM builds models under the model's own default dtype.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from trimtab.vectors import Gate, Profile
from trimtab.vectors.asked import MOST_PROFILES
from trimtab.vectors.manifest import ProfileManifest
from trimtab.vectors.nearest import half_squares

from ..config import rows_of
from ..errors import StartupError
from ..requests.request import Steering
from ..steps.batch import Ints
from ..steps.decisions import Decisions, SteeredRequest
from ..steps.entries import TokenEntries
from . import op_cpu
from .forms import ReadsStream
from .op import COSINE, COUNT, EUCLIDEAN, FIRST, LIMIT, NOT_HERE, steer
from .room import Room, Seat

__all__ = ["LayerTable", "SteeringTables"]

_PROBE_ROW = 0
_METRICS = {"euclidean": EUCLIDEAN, "cosine": COSINE}


class LayerTable(ReadsStream):
    """The rows of a layer, see `op.steer` for their meaning. Row 0 belongs to the self-check, and else is infinite."""

    rows: torch.Tensor
    bias: torch.Tensor
    slots: torch.Tensor
    limits: torch.Tensor
    decided: torch.Tensor
    counts: torch.Tensor

    def __init__(
        self, layer: int, rows: int, slots: int, decisions: int, hidden_size: int, tokens: TokenEntries, *, opens: bool
    ) -> None:
        super().__init__()
        self.layer = layer
        self.tokens = tokens
        self.opens = opens
        for name, shape, dtype in (
            ("rows", (rows, hidden_size), torch.float32),
            ("bias", (rows,), torch.float64),
            ("slots", (slots, 3), torch.int32),
            ("limits", (rows,), torch.float64),
            ("decided", (decisions,), torch.int32),
            ("counts", (2, rows), torch.int64),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=dtype), persistent=False)
        self.slots[:, FIRST] = NOT_HERE
        if self.rows.device.type == "cpu":
            op_cpu.load()
        elif self.rows.device.type == "cuda":
            from .op_triton import check_cache  # Triton is there where a GPU is

            check_cache()

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        """What steering adds to the residual stream: [T, D], the stream's dtype. See `forms.parts`."""
        return steer(
            *(hidden, residual, self.summed, self.tokens.entries),
            *(self.slots, self.limits, self.bias, self.rows, self.decided),
            *(self.tokens.lost, self.counts),
            opens=self.opens,
        )

    def put(self, slot: int, profile: Profile, first: int) -> None:
        """Write a profile's rows of this layer into the table from row `first` on, and then its slot."""
        tensors = profile.tensors[self.layer]
        named = {name: torch.tensor(array) for name, array in tensors.named.items()}
        gate = profile.manifest.gate
        if gate is None:
            self.rows[first].copy_(named["vector"])
            self._describe(slot, first, 0, 0)
        else:
            count = tensors.rows
            middle = first + count
            self.rows[first:middle].copy_(named["centroids"])
            self.bias[first:middle].copy_(torch.from_numpy(half_squares(tensors.named["centroids"])))
            self.rows[middle : middle + count].copy_(named["vectors"])
            self.counts[:, first : middle + count].zero_()
            limits = _limits(gate, self.layer, count)
            self.limits[first:middle].copy_(limits)
            self._describe(slot, first, count, _METRICS[gate.metric] if limits.isfinite().any() else 0)

    def leave(self, slot: int) -> None:
        """Let a slot add nothing here, before another profile gets it."""
        self._describe(slot, NOT_HERE, 0, 0)

    def probe(self, slot: int, vector: torch.Tensor | None) -> None:
        """Let `slot` add a vector [D] here; None ends it."""
        if vector is None:
            self.rows[_PROBE_ROW].zero_()
            self.leave(slot)
        else:
            self.rows[_PROBE_ROW].copy_(vector)
            self._describe(slot, _PROBE_ROW, 0, 0)

    def lose(self, slot: int) -> None:
        """Let `slot` add infinity here, which the op marks as lost."""
        self.rows[_PROBE_ROW].fill_(math.inf)
        self._describe(slot, _PROBE_ROW, 0, 0)

    def _describe(self, slot: int, first: int, count: int, metric: int) -> None:
        described = torch.zeros(3, dtype=torch.int32)
        described[FIRST], described[COUNT], described[LIMIT] = first, count, metric
        self.slots[slot].copy_(described)


def _limits(gate: Gate, layer: int, count: int) -> torch.Tensor:
    """The largest distance of each of a layer's concepts as the op compares it, see `op.steer`: float64 [count]."""
    own = (gate.limits or {}).get(layer, (None,) * count)
    found = [gate.max_distance if limit is None else limit for limit in own]
    limits = torch.tensor([math.inf if limit is None else limit for limit in found], dtype=torch.float64)
    return limits if gate.metric == "cosine" else limits**2


class _Slots(dict[str, int]):
    """The slots of the loaded profiles by their digests. A digest that is not there has the last slot, which adds
    infinity: a request whose profile has left ends with an error (see `steps.lost`), and no worker fails."""

    def __init__(self, lost: int) -> None:
        super().__init__()
        self._lost = lost

    def __missing__(self, digest: str) -> int:
        return self._lost


class SteeringTables(nn.Module):
    """All tables of one model, and the slots of the loaded profiles by their digests.

    Args:
        rows: armed layer → rows of its table.
        slots: how many there are, 0 (unsteered) and the last (of the self-check, and of what is lost) included.
        tokens: the most tokens of a step. requests: the most requests of a batch.
        here: the armed layers that this pipeline rank has; all of them by default.
    """

    def __init__(
        self,
        rows: Mapping[int, int],
        slots: int,
        hidden_size: int,
        *,
        tokens: int,
        requests: int,
        here: Collection[int] | None = None,
        registry_digest: str = "",
    ) -> None:
        super().__init__()
        self.registry_digest = registry_digest
        self.tokens = TokenEntries(tokens)
        decisions = 1 + MOST_PROFILES * requests
        mine = sorted(layer for layer in rows if here is None or layer in here)
        self.layers = {
            layer: LayerTable(layer, rows[layer], slots, decisions, hidden_size, self.tokens, opens=layer == mine[0])
            for layer in mine
        }
        self.probe_slot = slots - 1
        self.slots: dict[str, int] = _Slots(self.probe_slot)
        self.loaded: dict[str, tuple[ProfileManifest, Seat]] = {}
        """The loaded profiles by their digests, with the rows that they have."""
        self.requests: Counter[str] = Counter()
        """How many requests have come for each of them."""
        self._room = Room({layer: rows[layer] for layer in mine}, slots)
        self._armed = tuple(rows)
        self._decide_once = False
        self._decisions = Decisions([table.decided for table in self.layers.values()], decisions)
        self._lose_unknown()

    def load(self, profile: Profile, keep: Collection[str] | None = None) -> None:
        """Put a profile into the tables, in place: nothing is allocated on the device and no graph changes.

        keep: digests of the profiles that must stay; where room is needed the others leave, the oldest first. None
        keeps all.

        Raises:
            StartupError: a layer that is not armed, or no room.
        """
        if profile.digest in self.slots:
            self.loaded[profile.digest] = profile.manifest, self.loaded[profile.digest][1]
            return
        missing = [layer for layer in profile.layers if layer not in self._armed]
        if missing:
            raise StartupError(
                f"profile {profile.name!r} steers layer {missing[0]}, which is not armed (armed: "
                f"{', '.join(map(str, self._armed)) or 'none'}); start with --steering-layers {missing[0]}"
            )
        needs = {layer: rows_of(profile.tensors[layer]) for layer in profile.layers if layer in self.layers}
        seat = self._seat(profile.name, needs, [] if keep is None else [one for one in self.slots if one not in keep])
        for layer, (first, _) in seat.rows.items():
            self.layers[layer].put(seat.slot, profile, first)
        self.loaded[profile.digest], self.slots[profile.digest] = (profile.manifest, seat), seat.slot

    def _seat(self, name: str, needs: Mapping[int, int], idle: list[str]) -> Seat:
        while True:
            try:
                return self._room.take(name, needs)
            except StartupError:
                if not idle:
                    raise
                self._unload(idle.pop(0))

    def _unload(self, digest: str) -> None:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()  # a step that still runs may read these rows
        _, seat = self.loaded.pop(digest)
        del self.slots[digest], self.requests[digest]
        for layer in seat.rows:
            self.layers[layer].leave(seat.slot)
        self._room.give(seat)

    @contextmanager
    def probing(self) -> Iterator[None]:
        """For the self-check, see `TokenEntries.probing`: its slot adds nothing until `LayerTable.probe` says so."""
        for table in self.layers.values():
            table.probe(self.probe_slot, None)
        try:
            with self.tokens.probing(self.probe_slot):
                yield
        finally:
            self._lose_unknown()

    def _lose_unknown(self) -> None:
        for table in self.layers.values():
            table.lose(self.probe_slot)

    def take(self, steering: Steering, name: str = "") -> SteeredRequest:
        """A request that arrives, and its id in the engine; what admission has resolved is loaded."""
        request = SteeredRequest(steering, self.slots, name)
        self._decide_once = self._decide_once or request.gates > 0
        self.requests.update(part.digest for part in steering.parts)
        return request

    def step(self, batch: Sequence[SteeredRequest | None], computed: Ints, scheduled: Ints) -> None:
        """Set the entries of a step from its final batch; the arguments are those of `TokenEntries.fill`."""
        if self._decide_once:  # a look at every request, which few servers need
            self._decisions.assign(batch)
        self.tokens.fill(batch, computed, scheduled)
        if self._decisions.assigned:
            self._decisions.note_made(batch, computed + scheduled)

    @property
    def nbytes(self) -> int:
        """Device memory of the rows: rows × D × 4 bytes for each armed layer."""
        return sum(table.rows.nbytes for table in self.layers.values())
