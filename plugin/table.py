"""The device rows of the loaded profiles: allocated once at start, afterwards only written in place.

One `LayerTable` an armed layer holds the tensors of all profiles in flat rows; a slot says where a profile's rows begin
and how many they are. One `TokenRows` a model says which slot and alpha act on which token of this step; it is the same
for all layers, so a step costs the host the same for one armed layer as for thirty.

All tensors are registered buffers, because sleep level 2 restores nothing else, and float32 by name, because vLLM
builds models under the model's own default dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from trimtab.vectors import Profile

from .batch import Ints, token_rows
from .errors import StartupError
from .op import steer
from .request import Steering

__all__ = ["LayerTable", "SteeringTables", "TokenRows"]


class TokenRows(nn.Module):
    """slot: int32 [T_max], 0 is unsteered. alpha: float32 [T_max]. Rows past the step's own tokens are 0."""

    slot: torch.Tensor
    alpha: torch.Tensor

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.register_buffer("slot", torch.zeros(capacity, dtype=torch.int32), persistent=False)
        self.register_buffer("alpha", torch.zeros(capacity, dtype=torch.float32), persistent=False)
        self._used = 0
        self._repeatable: tuple[tuple[Steering | None, ...], Ints] | None = None

    def fill(
        self, steerings: Sequence[Steering | None], slots: dict[str, int], computed: Ints, scheduled: Ints
    ) -> None:
        """Set this step's rows from its final batch; the arguments are those of `token_rows`.

        Most steps decode one more token of the same requests, all of them past their first steered position: their
        rows are those that stand here already, and are left so.
        """
        asked = tuple(steerings)
        single = bool((scheduled == 1).all())
        if single and self._repeatable is not None:
            before, reached = self._repeatable
            # Positions at or past those of then, which were all steered where they should be, are steered as well.
            if before == asked and bool((computed >= reached).all()):
                return
        slot, alpha = token_rows(asked, slots, computed, scheduled)
        self.write(slot, alpha)
        settled = single and [s is not None for s in asked] == (slot != 0).tolist()
        self._repeatable = (asked, computed.copy()) if settled else None

    def write(self, slot: npt.NDArray[np.int32], alpha: npt.NDArray[np.float32]) -> None:
        """Set this step's rows and clear what the last step left beyond them, which a padded batch would read."""
        total = len(slot)
        if slot.any():
            self.slot[:total].copy_(torch.from_numpy(slot))
            self.alpha[:total].copy_(torch.from_numpy(alpha))
            kept = total
        else:
            kept = 0
        if self._used > kept:
            self.slot[kept : self._used].zero_()
        self._used = kept


class LayerTable(nn.Module):
    """Rows of a layer. centroids, vectors: float32 [R, D]. bias: float32 [R], ½‖c‖². start, count: int32 [S]."""

    centroids: torch.Tensor
    vectors: torch.Tensor
    bias: torch.Tensor
    start: torch.Tensor
    count: torch.Tensor

    def __init__(self, layer: int, rows: int, slots: int, hidden_size: int, tokens: TokenRows) -> None:
        super().__init__()
        self.layer = layer
        self.tokens = tokens
        for name, shape, dtype in (
            ("centroids", (rows, hidden_size), torch.float32),
            ("vectors", (rows, hidden_size), torch.float32),
            ("bias", (rows,), torch.float32),
            ("start", (slots,), torch.int32),
            ("count", (slots,), torch.int32),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=dtype), persistent=False)
        self._free_row = 1

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """What steering adds to the residual stream: [T, D], the stream's dtype."""
        return steer(
            hidden,
            residual,
            self.tokens.slot,
            self.tokens.alpha,
            self.start,
            self.count,
            self.centroids,
            self.bias,
            self.vectors,
        )

    def check_room(self, profile: Profile) -> None:
        """Raises a StartupError where the profile's rows of this layer do not fit any more."""
        rows = profile.tensors[self.layer].rows
        if self._free_row + rows > len(self.vectors):
            raise StartupError(
                f"profile {profile.name!r} needs {rows} rows at layer {self.layer} and "
                f"{len(self.vectors) - self._free_row} are free; start with a larger --steering-rows"
            )

    def put(self, slot: int, profile: Profile) -> None:
        """Write a profile's rows of this layer into a free place of the table."""
        tensors = profile.tensors[self.layer]
        rows = tensors.rows
        place = slice(self._free_row, self._free_row + rows)
        named = {name: torch.tensor(array) for name, array in tensors.named.items()}
        if "centroids" in named:
            self.vectors[place].copy_(named["vectors"])
            self.centroids[place].copy_(named["centroids"])
            self.bias[place].copy_(named["centroids"].square().sum(dim=1) / 2)
        else:
            self.vectors[place].copy_(named["vector"][None])
        self.start[slot] = self._free_row
        self.count[slot] = rows
        self._free_row += rows


class SteeringTables(nn.Module):
    """All tables of one model, and the slots of the loaded profiles by their digests."""

    def __init__(
        self, rows: dict[int, int], slots: int, hidden_size: int, tokens: int, registry_digest: str = ""
    ) -> None:
        super().__init__()
        self.registry_digest = registry_digest
        self.tokens = TokenRows(tokens)
        self.layers = {layer: LayerTable(layer, n, slots, hidden_size, self.tokens) for layer, n in rows.items()}
        self.slots: dict[str, int] = {}
        self._capacity = slots
        self._hidden_size = hidden_size

    def load(self, profile: Profile) -> None:
        """Put a profile into the tables, in place: nothing is allocated on the device and no graph changes.

        Raises:
            StartupError: a layer that is not armed, or no room.
        """
        if profile.digest in self.slots:
            return
        missing = [layer for layer in profile.layers if layer not in self.layers]
        if missing:
            raise StartupError(
                f"profile {profile.name!r} steers layer {missing[0]}, which is not armed (armed: "
                f"{', '.join(map(str, self.layers)) or 'none'}); start with --steering-layers {missing[0]}"
            )
        slot = len(self.slots) + 1
        if slot >= self._capacity:
            raise StartupError(
                f"no slot is free for profile {profile.name!r} (there are {self._capacity - 1}); "
                "start with a larger --steering-rows"
            )
        for layer in profile.layers:  # all of them first, so that a refused profile leaves nothing behind
            self.layers[layer].check_room(profile)
        for layer in profile.layers:
            self.layers[layer].put(slot, profile)
        self.slots[profile.digest] = slot

    @property
    def nbytes(self) -> int:
        """Device memory of the rows: rows × D × 4 bytes for vectors and as much for centroids, over all layers."""
        return sum(2 * table.vectors.nbytes for table in self.layers.values())
