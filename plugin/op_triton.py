"""The CUDA form of the op: one program a token, static in shape, free of synchronisation, fit for CUDA graphs.

An unsteered token costs its zeros. A steered one reads its stream row once a tile of centroids, keeps the best score
and its index in registers, and adds one row. Centroids of a profile are shared by its tokens through the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["launch"]

_BLOCK_K = 8
_BLOCK_D = 512


@triton.jit
def _steer(  # type: ignore[no-untyped-def]
    hidden,
    residual,
    delta,
    token_slot,
    token_alpha,
    start,
    count,
    centroids,
    bias,
    vectors,
    hidden_stride,
    residual_stride,
    D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(token_slot + token)
    first = tl.load(start + slot)
    n = tl.load(count + slot)
    n = tl.where(slot == 0, 0, n)

    best_score = float("-inf")
    best_row = first
    if n > 1:
        for k0 in range(0, n, BLOCK_K):
            k = k0 + tl.arange(0, BLOCK_K)
            rows = (first + k).to(tl.int64)
            score = -tl.load(bias + rows, mask=k < n, other=0.0)
            for d0 in range(0, D, BLOCK_D):
                d = d0 + tl.arange(0, BLOCK_D)
                h = tl.load(hidden + token * hidden_stride + d, mask=d < D, other=0.0).to(tl.float32)
                h += tl.load(residual + token * residual_stride + d, mask=d < D, other=0.0).to(tl.float32)
                inside = (k < n)[:, None] & (d < D)[None, :]
                c = tl.load(centroids + rows[:, None] * D + d[None, :], mask=inside, other=0.0)
                score += tl.sum(h[None, :] * c, axis=1)
            score = tl.where(k < n, score, float("-inf"))  # last: an infinite h makes NaN of the rows past n too
            tile_score = tl.max(score, axis=0)
            tile_row = first + k0 + tl.argmax(score, axis=0, tie_break_left=True)
            best_row = tl.where(tile_score > best_score, tile_row, best_row)  # strictly: the lowest index wins a tie
            best_score = tl.maximum(tile_score, best_score)

    alpha = tl.load(token_alpha + token)
    end = tl.where(n > 0, D, 0)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        v = tl.load(vectors + best_row.to(tl.int64) * D + d, mask=d < end, other=0.0)
        tl.store(delta + token * D + d, (alpha * v).to(delta.dtype.element_ty), mask=d < D)


def launch(
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
    """As `op.steer`, whose arguments these are; the last dimension of every tensor is contiguous."""
    tokens, size = residual.shape
    delta = torch.empty((tokens, size), dtype=residual.dtype, device=residual.device)
    if tokens:
        _steer[(tokens,)](
            hidden,
            residual,
            delta,
            token_slot,
            token_alpha,
            start,
            count,
            centroids,
            bias,
            vectors,
            hidden.stride(0),
            residual.stride(0),
            D=size,
            BLOCK_K=_BLOCK_K,
            BLOCK_D=min(_BLOCK_D, triton.next_power_of_2(size)),
        )
    return delta
