"""The addition: delta = Σ_i alpha_i · v_i(h), v_i(h) the row of profile i's nearest centroid.

    score_k = h·c_k − ½‖c_k‖²      h = hidden + residual, summed in float32; the lowest index wins a tie

The stream is hidden alone where a layer returns no residual, or one that nothing reads (see `forms`).

A gate decides in float64, see `trimtab.vectors.nearest`: no choice differs from the exact one. A custom op, so that
torch.compile and CUDA graphs see one opaque node whose shape depends on nothing but its input's. Its only side effects
are on `decided`, where a gate that decides once for a whole answer leaves its choice, on `lost`, which `steps.lost`
reads, and on `counts`, which `chosen` reads. A coarse profile has one row, which is never scored. [T, K, D] is never
built. The CPU form, in op_cpu.cpp, looks at active entries alone; the CUDA form is `op_triton`.
"""

from __future__ import annotations

from typing import Any

import torch

from .fields import COSINE, COUNT, EUCLIDEAN, FIRST, LIMIT, NOT_HERE

__all__ = ["COSINE", "COUNT", "EUCLIDEAN", "FIRST", "LIMIT", "NOT_HERE", "steer"]

_LIBRARY = torch.library.Library("trimtab", "DEF")
_LIBRARY.define(
    "steer(Tensor hidden, Tensor? residual, Tensor summed, Tensor entries, Tensor slots, Tensor limits, Tensor bias, "
    "Tensor rows, Tensor(a!) decided, Tensor(b!) lost, Tensor(c!) counts, *, bool opens=True) -> Tensor"
)


def steer(
    hidden: torch.Tensor,
    residual: torch.Tensor | None,
    summed: torch.Tensor,
    entries: torch.Tensor,
    slots: torch.Tensor,
    limits: torch.Tensor,
    bias: torch.Tensor,
    rows: torch.Tensor,
    decided: torch.Tensor,
    lost: torch.Tensor,
    counts: torch.Tensor,
    *,
    opens: bool = True,
) -> torch.Tensor:
    """What to add to `hidden`.

    Args:
        hidden, residual: [T, D], the two parts of the stream after a decoder layer, any float dtype.
        summed: uint8 [1], 0 where `residual` is no part of the stream, and is not read.
        entries: int32 [≥ T, 3, P], what acts on each token, see `batch.Entries`.
        slots: int32 [S, 3], see FIRST, COUNT and LIMIT. Slot 0 is unsteered.
        limits: float64 [R], of rows that are centroids the largest distance (inclusive) at which their vectors are
            added; squared if Euclidean, infinite for none. Read only where the profile's slot names a metric.
        bias: float64 [R], ½‖c‖² of rows that are centroids. rows: float32 [R, D].
        decided: int32 [P′], rows that gates chose for whole answers; read and written here.
        lost: uint8 [≥ T], 1 marks a token whose sum was not finite in the dtype of `hidden`: it gets zeros.
        counts: int64 [2, R], how often each row was chosen; grows by one per token and part whose profile has a gate.
            First by gates that decide for this token, then by those that had decided before. That nothing is added,
            because the nearest centroid is too far, counts at the profile's first row, a centroid.
        opens: whether this is the first layer of a step, which takes away the marks of the step before.

    Returns:
        [T, D] in the dtype of `hidden`: accumulated in float32, cast once, finite.
    """
    delta: torch.Tensor = torch.ops.trimtab.steer(
        hidden, residual, summed, entries, slots, limits, bias, rows, decided, lost, counts, opens=opens
    )
    return delta


@torch.library.impl(_LIBRARY, "steer", "CUDA")
def _steer_cuda(hidden: torch.Tensor, *tensors: Any, opens: bool = True) -> torch.Tensor:
    from .op_triton import launch

    return launch(hidden, *tensors, opens=opens)


@torch.library.register_fake("trimtab::steer", lib=_LIBRARY)
def _steer_fake(hidden: torch.Tensor, *rest: Any, opens: bool = True) -> torch.Tensor:
    return torch.empty_like(hidden)
