"""The addition: delta = alpha · v(h), where v(h) is the row of the profile's nearest centroid (DESIGN, "The op").

    score_k = h·c_k − ½‖c_k‖²      h = hidden + residual in float32; the lowest index wins a tie

A custom op, so that torch.compile and CUDA graphs see one opaque, functional node whose shape depends on nothing but
its input's. A coarse profile has one row: the nearest of one, so it is never scored. Rows are grouped by profile; [T,
K, D] is never built. The CPU form looks at active rows alone; the CUDA form is the kernel in `op_triton`.
"""

from __future__ import annotations

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
    delta = torch.zeros_like(residual)
    token_slot = token_slot[: residual.shape[0]]
    steered = token_slot.nonzero().flatten()
    if not len(steered):
        return delta
    slot_of = token_slot[steered]
    for slot in slot_of.unique().tolist():
        first, n = int(start[slot]), int(count[slot])
        if n == 0:
            continue
        at = steered[slot_of == slot]
        rows = slice(first, first + n)
        if n == 1:
            added = vectors[rows]
        else:
            h = hidden[at].float() + residual[at].float()
            nearest = torch.addmm(bias[rows], h, centroids[rows].T, beta=-1).argmax(dim=1)
            added = vectors[rows][nearest]
        delta[at] = (token_alpha[at, None] * added).to(delta.dtype)
    return delta


@torch.library.impl(_LIBRARY, "steer", "CUDA")
def _steer_cuda(*tensors: torch.Tensor) -> torch.Tensor:
    from .op_triton import launch

    return launch(*tensors)


@torch.library.register_fake("trimtab::steer", lib=_LIBRARY)
def _steer_fake(hidden: torch.Tensor, residual: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(residual)
