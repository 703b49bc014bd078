"""The addition: delta = alpha · v(h), where v(h) is the row of the profile's nearest centroid (DESIGN, "The op").

    score_k = h·c_k − ½‖c_k‖²      h = hidden + residual in float32; the lowest index wins a tie

A custom op, so that torch.compile and CUDA graphs see one opaque, functional node whose shape depends on nothing but
its input's. A coarse profile has one row: the nearest of one, so it is never scored. Rows are grouped by profile; [T,
K, D] is never built. The CPU form looks at active rows alone; the CUDA form is the kernel in `op_triton`.
"""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["steer"]

_LIBRARY = torch.library.Library("trimtab", "DEF")
_LIBRARY.define(
    "steer(Tensor hidden, Tensor residual, Tensor token_slot, Tensor token_alpha, Tensor start, Tensor count, "
    "Tensor centroids, Tensor bias, Tensor vectors) -> Tensor"
)


def steer(
    hidden: torch.Tensor,
    residual: torch.Tensor,
    token_slot: torch.Tensor,
    token_alpha: torch.Tensor,
    start: torch.Tensor,
    count: torch.Tensor,
    centroids: torch.Tensor,
    bias: torch.Tensor,
    vectors: torch.Tensor,
) -> torch.Tensor:
    """What to add to `residual`.

    Args:
        hidden, residual: [T, D], the two parts of the stream after a decoder layer, any float dtype.
        token_slot: int32 [≥ T]; 0 is unsteered. token_alpha: float32 [≥ T].
        start, count: int32 [S], where the rows of a slot begin and how many there are (0: not at this layer).
        centroids, vectors: float32 [R, D]. bias: float32 [R], ½‖c‖².

    Returns:
        [T, D] in the dtype of `residual`: accumulated in float32, cast once.
    """
    delta: torch.Tensor = torch.ops.trimtab.steer(
        hidden, residual, token_slot, token_alpha, start, count, centroids, bias, vectors
    )
    return delta


@torch.library.impl(_LIBRARY, "steer", "CPU")
def _steer_cpu(
    hidden: torch.Tensor,
    residual: torch.Tensor,
    token_slot: torch.Tensor,
    token_alpha: torch.Tensor,
    start: torch.Tensor,
    count: torch.Tensor,
    centroids: torch.Tensor,
    bias: torch.Tensor,
    vectors: torch.Tensor,
) -> torch.Tensor:
    # The indices are host memory here: numpy reads them without a torch call for each, of which a step affords few.
    slot_of = token_slot[: residual.shape[0]].numpy()
    slots = np.flatnonzero(np.bincount(slot_of, minlength=1))
    if len(slots) == 1 and slots[0] != 0:
        return _delta(
            int(slots[0]), hidden, residual, token_alpha[: len(slot_of)], start, count, centroids, bias, vectors
        )
    delta = torch.zeros_like(residual)
    for slot in slots[slots != 0].tolist():
        at = torch.from_numpy(np.flatnonzero(slot_of == slot))
        delta[at] = _delta(slot, hidden[at], residual[at], token_alpha[at], start, count, centroids, bias, vectors)
    return delta


def _delta(
    slot: int,
    hidden: torch.Tensor,
    residual: torch.Tensor,
    alpha: torch.Tensor,
    start: torch.Tensor,
    count: torch.Tensor,
    centroids: torch.Tensor,
    bias: torch.Tensor,
    vectors: torch.Tensor,
) -> torch.Tensor:
    """[N, D] in the dtype of `residual`, for N tokens of one slot."""
    first, n = int(start.numpy()[slot]), int(count.numpy()[slot])
    if n == 0:
        return torch.zeros_like(residual)
    rows = vectors[first : first + n]
    if n > 1:
        h = hidden.to(torch.float32, copy=True).add_(residual)
        score = torch.addmm(bias[first : first + n], h, centroids[first : first + n].T, beta=-1)
        rows = rows.index_select(0, score.argmax(dim=1))
    return (alpha[:, None] * rows).to(residual.dtype)


@torch.library.impl(_LIBRARY, "steer", "CUDA")
def _steer_cuda(*tensors: torch.Tensor) -> torch.Tensor:
    from .op_triton import launch

    return launch(*tensors)


@torch.library.register_fake("trimtab::steer", lib=_LIBRARY)
def _steer_fake(hidden: torch.Tensor, residual: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(residual)
