"""The addition: delta = Σ_i alpha_i · v_i(h), v_i(h) the row of profile i's nearest centroid (DESIGN, "The op").

    score_k = h·c_k − ½‖c_k‖²      h = hidden + residual in float32; the lowest index wins a tie

A custom op, so that torch.compile and CUDA graphs see one opaque node whose shape depends on nothing but its input's.
Its only side effect is on `decided`, where a gate that decides once for a whole answer leaves its choice. A coarse
profile has one row, which is never scored. Rows are grouped by profile; [T, K, D] is never built. The CPU form looks at
active rows alone; the CUDA form is the kernel in `op_triton`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from .batch import ALPHA, DECISION, SLOT
from .compiled import njit

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

__all__ = ["COSINE", "COUNT", "EUCLIDEAN", "FIRST", "LIMIT", "NOT_HERE", "steer"]

# Fields of a slot. FIRST: its first row, or NOT_HERE. COUNT: 0 for a coarse profile, whose row is FIRST; K for a fine
# one, with centroids at FIRST and vectors at FIRST + K. LIMIT: which distance is limited, 0 for none.
FIRST, COUNT, LIMIT = range(3)
NOT_HERE = -1  # in place of a row, wherever one is named: nothing is added
EUCLIDEAN, COSINE = 1, 2

_LIBRARY = torch.library.Library("trimtab", "DEF")
_LIBRARY.define(
    "steer(Tensor hidden, Tensor residual, Tensor tokens, Tensor slots, Tensor limits, Tensor bias, Tensor rows, "
    "Tensor(a!) decided) -> Tensor"
)


def steer(
    hidden: torch.Tensor,
    residual: torch.Tensor,
    tokens: torch.Tensor,
    slots: torch.Tensor,
    limits: torch.Tensor,
    bias: torch.Tensor,
    rows: torch.Tensor,
    decided: torch.Tensor,
) -> torch.Tensor:
    """What to add to `residual`.

    Args:
        hidden, residual: [T, D], the two parts of the stream after a decoder layer, any float dtype.
        tokens: int32 [≥ T, 3, P], slot, strength and decision of each token's parts, see `batch.token_rows`.
        slots: int32 [S, 3], see FIRST, COUNT and LIMIT. Slot 0 is unsteered.
        limits: float32 [S], the largest distance (inclusive) at which a fine profile adds; squared if Euclidean.
        bias: float32 [R], ½‖c‖² of rows that are centroids. rows: float32 [R, D].
        decided: int32 [P′], rows that gates chose for whole answers; read and written here.

    Returns:
        [T, D] in the dtype of `residual`: accumulated in float32, cast once.
    """
    delta: torch.Tensor = torch.ops.trimtab.steer(hidden, residual, tokens, slots, limits, bias, rows, decided)
    return delta


@torch.library.impl(_LIBRARY, "steer", "CPU")
def _steer_cpu(
    hidden: torch.Tensor,
    residual: torch.Tensor,
    tokens: torch.Tensor,
    slots: torch.Tensor,
    limits: torch.Tensor,
    bias: torch.Tensor,
    rows: torch.Tensor,
    decided: torch.Tensor,
) -> torch.Tensor:
    of_token, described = tokens.numpy()[: len(residual)], slots.numpy()
    active = of_token[:, SLOT]
    if not active.any():
        return torch.zeros_like(residual)
    # Only a gate looks at the stream.
    h = hidden.float() + residual.float() if described[active, COUNT].any() else rows[:0]
    delta = torch.zeros(residual.shape, dtype=torch.float32)
    _add_up(
        delta.numpy(),
        h.numpy(),
        of_token,
        of_token[:, ALPHA].view(np.float32),
        described,
        limits.numpy(),
        bias.numpy(),
        rows.numpy(),
        decided.numpy(),
    )
    return delta.to(residual.dtype)


@njit()
def _add_up(
    delta: Float32, h: Float32, tokens: Int32, strength: Float32, slots: Int32, limits: Float32, bias: Float32,
    rows: Float32, decided: Int32,
) -> None:  # fmt: skip
    """Add each token's parts to `delta` [T, D], one after the other, whoever shares the batch."""
    for t in range(tokens.shape[0]):
        for part in range(tokens.shape[2]):
            slot = tokens[t, SLOT, part]
            if slot == 0:
                continue
            row, count = slots[slot, FIRST], slots[slot, COUNT]
            if count > 0:
                # At other layers than the gate's a decision's place holds what a former holder left.
                decision = tokens[t, DECISION, part]
                if decision > 0:
                    row = decided[decision]
                else:
                    row = _through_gate(h[t], row, count, slots[slot, LIMIT], limits[slot], bias, rows)
                    if decision < 0:
                        decided[-decision] = row
            if row != NOT_HERE:
                for d in range(delta.shape[1]):
                    delta[t, d] += strength[t, part] * rows[row, d]


# Sums may be taken in any order, so that they become vector instructions.
@njit(fastmath={"reassoc", "contract"})
def _through_gate(
    h: Float32, first: int, count: int, metric: int, limit: float, bias: Float32, rows: Float32
) -> int:  # fmt: skip
    """The row that a fine profile adds to a token whose stream is `h` [D], or NOT_HERE."""
    best, nearest = np.float32(-np.inf), first
    for row in range(first, first + count):
        score = np.float32(0)
        for d in range(len(h)):
            score += h[d] * rows[row, d]
        score -= bias[row]
        if score > best:  # strictly: the lowest index wins a tie
            best, nearest = score, row
    if metric != 0:
        apart, hh, cc, hc = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for d in range(len(h)):
            c = rows[nearest, d]
            apart += (h[d] - c) * (h[d] - c)
            hh += h[d] * h[d]
            cc += c * c
            hc += h[d] * c
        if metric == COSINE:
            # Inside no limit where one of the two is zero.
            apart = np.float32(1) - hc / np.sqrt(hh * cc) if hh * cc > 0 else np.float32(np.inf)
        if not apart <= limit:
            return NOT_HERE
    return nearest + count


@torch.library.impl(_LIBRARY, "steer", "CUDA")
def _steer_cuda(*tensors: torch.Tensor) -> torch.Tensor:
    from .op_triton import launch

    return launch(*tensors)


@torch.library.register_fake("trimtab::steer", lib=_LIBRARY)
def _steer_fake(hidden: torch.Tensor, residual: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(residual)
