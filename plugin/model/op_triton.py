"""The CUDA form of the op: one program a token, static in shape, free of synchronisation, fit for CUDA graphs.

An unsteered token costs its zeros. A steered one reads its stream row once a tile of centroids, keeps the best score
and its index in registers, and adds up one row a part. Centroids of a profile are shared by its tokens through the
cache. A decision is never read in the step that makes it (see `gates`), so programs need not wait for each other.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from trimtab.vectors.asked import MOST_PROFILES

from ..steps.batch import ALPHA, DECISION, SLOT
from .op import COSINE, COUNT, EUCLIDEAN, FIRST, LIMIT, NOT_HERE

__all__ = ["launch"]

_BLOCK_K = 8
_BLOCK_D = 512

# What a kernel reads of the module must be marked as constant.
_SLOT, _ALPHA, _DECISION = tl.constexpr(SLOT), tl.constexpr(ALPHA), tl.constexpr(DECISION)
_FIRST, _COUNT, _LIMIT = tl.constexpr(FIRST), tl.constexpr(COUNT), tl.constexpr(LIMIT)
_EUCLIDEAN, _COSINE, _NOT_HERE = tl.constexpr(EUCLIDEAN), tl.constexpr(COSINE), tl.constexpr(NOT_HERE)
_PARTS = tl.constexpr(MOST_PROFILES)


@triton.jit
def _stream(hidden, residual, d, D: tl.constexpr):  # type: ignore[no-untyped-def]
    h = tl.load(hidden + d, mask=d < D, other=0.0).to(tl.float32)
    return h + tl.load(residual + d, mask=d < D, other=0.0).to(tl.float32)


@triton.jit
def _nearest(  # type: ignore[no-untyped-def]
    hidden, residual, rows, bias, first, count, D: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr
):
    """The row of the centroid with the highest score, the lowest of equals."""
    best_score = float("-inf")
    best_row = first
    for k0 in range(0, count, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        row = (first + k).to(tl.int64)
        score = -tl.load(bias + row, mask=k < count, other=0.0)
        for d0 in range(0, D, BLOCK_D):
            d = d0 + tl.arange(0, BLOCK_D)
            h = _stream(hidden, residual, d, D)
            inside = (k < count)[:, None] & (d < D)[None, :]
            c = tl.load(rows + row[:, None] * D + d[None, :], mask=inside, other=0.0)
            score += tl.sum(h[None, :] * c, axis=1)
        score = tl.where(k < count, score, float("-inf"))  # last: an infinite h makes NaN of the rows past K too
        tile_score = tl.max(score, axis=0)
        tile_row = first + k0 + tl.argmax(score, axis=0, tie_break_left=True)
        best_row = tl.where(tile_score > best_score, tile_row, best_row)  # strictly: the lowest index wins a tie
        best_score = tl.maximum(tile_score, best_score)
    return best_row


@triton.jit
def _distance(  # type: ignore[no-untyped-def]
    hidden, residual, centroid, metric, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Squared if Euclidean. NaN, which is inside no limit, for the cosine of a zero vector."""
    apart = tl.zeros((BLOCK_D,), tl.float32)
    hh = tl.zeros((BLOCK_D,), tl.float32)
    cc = tl.zeros((BLOCK_D,), tl.float32)
    hc = tl.zeros((BLOCK_D,), tl.float32)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        h = _stream(hidden, residual, d, D)
        c = tl.load(centroid + d, mask=d < D, other=0.0)
        apart += (h - c) * (h - c)
        hh += h * h
        cc += c * c
        hc += h * c
    cosine = 1 - tl.sum(hc, axis=0) / tl.sqrt(tl.sum(hh, axis=0) * tl.sum(cc, axis=0))
    return tl.where(metric == _COSINE, cosine, tl.sum(apart, axis=0))


@triton.jit
def _row(  # type: ignore[no-untyped-def]
    part, token, hidden, residual, slots, limits, bias, rows, decided,
    D: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The row that a part adds to a token, or NOT_HERE."""
    row = _NOT_HERE
    slot = tl.load(token + _SLOT * _PARTS + part)
    if slot != 0:
        first = tl.load(slots + slot * 3 + _FIRST)
        count = tl.load(slots + slot * 3 + _COUNT)
        row = first
        if count > 0:
            decision = tl.load(token + _DECISION * _PARTS + part)
            if decision > 0:
                row = tl.load(decided + decision)
            else:
                nearest = _nearest(hidden, residual, rows, bias, first, count, D, BLOCK_K, BLOCK_D)
                row = nearest + count
                metric = tl.load(slots + slot * 3 + _LIMIT)
                if metric != 0:
                    centroid = rows + nearest.to(tl.int64) * D
                    distance = _distance(hidden, residual, centroid, metric, D, BLOCK_D)
                    row = tl.where(distance <= tl.load(limits + slot), row, _NOT_HERE)
                if decision < 0:
                    tl.store(decided - decision, row)
    return row


@triton.jit
def _steer(  # type: ignore[no-untyped-def]
    hidden, residual, delta, tokens, slots, limits, bias, rows, decided, hidden_stride, residual_stride,
    D: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    mine = tokens + token * 3 * _PARTS
    hidden += token * hidden_stride
    residual += token * residual_stride
    delta += token * D
    row_0 = _row(0, mine, hidden, residual, slots, limits, bias, rows, decided, D, BLOCK_K, BLOCK_D)
    row_1 = _row(1, mine, hidden, residual, slots, limits, bias, rows, decided, D, BLOCK_K, BLOCK_D)
    row_2 = _row(2, mine, hidden, residual, slots, limits, bias, rows, decided, D, BLOCK_K, BLOCK_D)
    row_3 = _row(3, mine, hidden, residual, slots, limits, bias, rows, decided, D, BLOCK_K, BLOCK_D)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        added = _added(mine, 0, row_0, rows, d, D)
        added += _added(mine, 1, row_1, rows, d, D)
        added += _added(mine, 2, row_2, rows, d, D)
        added += _added(mine, 3, row_3, rows, d, D)
        tl.store(delta + d, added.to(delta.dtype.element_ty), mask=d < D)


@triton.jit
def _added(token, part, row, rows, d, D: tl.constexpr):  # type: ignore[no-untyped-def]
    alpha = tl.load(token + _ALPHA * _PARTS + part).to(tl.float32, bitcast=True)
    end = tl.where(row == _NOT_HERE, 0, D)
    return alpha * tl.load(rows + row.to(tl.int64) * D + d, mask=d < end, other=0.0)


def launch(
    hidden: torch.Tensor,
    residual: torch.Tensor,
    tokens: torch.Tensor,
    slots: torch.Tensor,
    limits: torch.Tensor,
    bias: torch.Tensor,
    rows: torch.Tensor,
    decided: torch.Tensor,
) -> torch.Tensor:
    """As `op.steer`, whose arguments these are; the last dimension of every tensor is contiguous."""
    size = residual.shape[-1]
    delta = torch.empty(residual.shape, dtype=residual.dtype, device=residual.device)
    if len(residual):
        _steer[(len(residual),)](
            hidden, residual, delta, tokens, slots, limits, bias, rows, decided, hidden.stride(0), residual.stride(0),
            D=size, BLOCK_K=_BLOCK_K, BLOCK_D=min(_BLOCK_D, triton.next_power_of_2(size)),
        )  # fmt: skip
    return delta
