"""The addition: delta = Σ_i alpha_i · v_i(h), v_i(h) the row of profile i's nearest centroid.

    score_k = h·c_k − ½‖c_k‖²      h = hidden + residual in float32; the lowest index wins a tie

A custom op, so that torch.compile and CUDA graphs see one opaque node whose shape depends on nothing but its input's.
Its only side effect is on `decided`, where a gate that decides once for a whole answer leaves its choice. A coarse
profile has one row, which is never scored. [T, K, D] is never built. The CPU form, in op_cpu.cpp, looks at active rows
alone; the CUDA form is the kernel in `op_triton`.
"""

from __future__ import annotations

import torch

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
        tokens: int32 [≥ T, 3, P], slot, strength and decision of each token's parts, see `batch.Rows`.
        slots: int32 [S, 3], see FIRST, COUNT and LIMIT. Slot 0 is unsteered.
        limits: float32 [S], the largest distance (inclusive) at which a fine profile adds; squared if Euclidean.
        bias: float32 [R], ½‖c‖² of rows that are centroids. rows: float32 [R, D].
        decided: int32 [P′], rows that gates chose for whole answers; read and written here.

    Returns:
        [T, D] in the dtype of `residual`: accumulated in float32, cast once.
    """
    delta: torch.Tensor = torch.ops.trimtab.steer(hidden, residual, tokens, slots, limits, bias, rows, decided)
    return delta


@torch.library.impl(_LIBRARY, "steer", "CUDA")
def _steer_cuda(*tensors: torch.Tensor) -> torch.Tensor:
    from .op_triton import launch

    return launch(*tensors)


@torch.library.register_fake("trimtab::steer", lib=_LIBRARY)
def _steer_fake(hidden: torch.Tensor, residual: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(residual)
