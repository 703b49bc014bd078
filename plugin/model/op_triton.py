"""The CUDA form of the op: one program per token, static in shape, free of synchronisation, fit for CUDA graphs.

An unsteered token costs its zeros. A steered one reads its stream row once per tile of centroids, keeps the best score
and its index in registers, and adds up one row per part. Centroids of a profile are shared by its tokens through the
cache. A decision is never read in the step that makes it (see `decisions`), so programs need not wait for each other.

A gate decides in float64, which most GPUs compute slowly. So a pass in float32 comes first, measured from the profile's
first centroid o, in which what h and all centroids have in common cancels exactly:

    score_k − score_o = (c_k − o)·((h − o) − ½(c_k − o))

Each term is off by at most four roundings of |c_k − o| (|h − o| + |c_k − o|), and a sum by at most one rounding per
addition that a number passes through, here fewer than 124: 2⁻¹⁷ of the terms' sizes. Where the best score leads the
second by more than twice that, it is the exact one; only tokens where it does not take the pass in float64.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import triton
import triton.language as tl

from trimtab.vectors.asked import MOST_PROFILES

from ..errors import StartupError
from ..steps.batch import ALPHA, DECISION, SLOT
from .fields import COSINE, COUNT, EUCLIDEAN, FIRST, LIMIT, NOT_HERE

__all__ = ["check_cache", "launch"]

_BLOCK_K = 8
_BLOCK_D = 512

# What a kernel reads of the module must be marked as constant.
_SLOT, _ALPHA, _DECISION = tl.constexpr(SLOT), tl.constexpr(ALPHA), tl.constexpr(DECISION)
_FIRST, _COUNT, _LIMIT = tl.constexpr(FIRST), tl.constexpr(COUNT), tl.constexpr(LIMIT)
_EUCLIDEAN, _COSINE, _NOT_HERE = tl.constexpr(EUCLIDEAN), tl.constexpr(COSINE), tl.constexpr(NOT_HERE)
_PARTS = tl.constexpr(MOST_PROFILES)
_DOUBT = tl.constexpr(2.0**-16)


@triton.jit
def _stream(hidden, residual, read, d, D: tl.constexpr):  # type: ignore[no-untyped-def]
    """`read`: D where the residual is a part of the stream, else 0: then it is not loaded, whatever is in it."""
    h = tl.load(hidden + d, mask=d < D, other=0.0).to(tl.float32)
    return h + tl.load(residual + d, mask=d < read, other=0.0).to(tl.float32)


@triton.jit
def _nearest(  # type: ignore[no-untyped-def]
    hidden, residual, read, rows, bias, first, count, D: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr
):
    """The row of the nearest centroid, the lowest of equals."""
    row, lead, size = _best(hidden, residual, read, rows, bias, first, count, False, D, BLOCK_K, BLOCK_D)
    if not (lead > _DOUBT * size):  # also where one of them is NaN
        # Names of their own: the compiler keeps one dtype per name, and these are float64.
        row, _lead, _size = _best(hidden, residual, read, rows, bias, first, count, True, D, BLOCK_K, BLOCK_D)
    return row


@triton.jit
def _best(  # type: ignore[no-untyped-def]
    hidden, residual, read, rows, bias, first, count,
    EXACT: tl.constexpr, D: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The row of the highest score, by how much it leads the second, and the largest sum of the sizes of the terms.

    EXACT: the scores themselves in float64, else their differences from the first one's in float32.
    """
    dtype: tl.constexpr = tl.float64 if EXACT else tl.float32
    origin = rows + first.to(tl.int64) * D
    low = tl.full((), float("-inf"), dtype)
    best, second, largest = low, low, low
    best_row = first
    for k0 in range(0, count, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        row = (first + k).to(tl.int64)
        score = tl.zeros((BLOCK_K,), dtype)
        size = tl.zeros((BLOCK_K,), dtype)
        for d0 in range(0, D, BLOCK_D):
            d = d0 + tl.arange(0, BLOCK_D)
            h = _stream(hidden, residual, read, d, D)
            inside = (k < count)[:, None] & (d < D)[None, :]
            c = tl.load(rows + row[:, None] * D + d[None, :], mask=inside, other=0.0)
            if EXACT:
                score += tl.sum(h.to(dtype)[None, :] * c.to(dtype), axis=1)
            else:
                o = tl.load(origin + d, mask=d < D, other=0.0)
                h = (h - o)[None, :]
                c -= o[None, :]
                score += tl.sum(c * (h - 0.5 * c), axis=1)
                size += tl.sum(tl.abs(c) * (tl.abs(h) + tl.abs(c)), axis=1)
        if EXACT:
            score -= tl.load(bias + row, mask=k < count, other=0.0)
        # An infinite h makes NaN of scores, which win nowhere.
        score = tl.where((k < count) & (score == score), score, low)
        largest = tl.maximum(largest, tl.max(tl.where(k < count, size, low), axis=0))
        at = tl.argmax(score, axis=0, tie_break_left=True)
        tile_best = tl.max(score, axis=0)
        tile_second = tl.max(tl.where(tl.arange(0, BLOCK_K) == at, low, score), axis=0)
        second = tl.maximum(tl.maximum(second, tile_second), tl.minimum(best, tile_best))
        best_row = tl.where(tile_best > best, first + k0 + at, best_row)  # strictly: the lowest index wins a tie
        best = tl.maximum(best, tile_best)
    return best_row, best - second, largest


@triton.jit
def _distance(  # type: ignore[no-untyped-def]
    hidden, residual, read, centroid, metric, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    """In float64; squared if Euclidean. Infinite, which is inside no limit, for the cosine of a zero vector."""
    apart = tl.zeros((BLOCK_D,), tl.float64)
    hh = tl.zeros((BLOCK_D,), tl.float64)
    cc = tl.zeros((BLOCK_D,), tl.float64)
    hc = tl.zeros((BLOCK_D,), tl.float64)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        h = _stream(hidden, residual, read, d, D).to(tl.float64)
        c = tl.load(centroid + d, mask=d < D, other=0.0).to(tl.float64)
        apart += (h - c) * (h - c)
        hh += h * h
        cc += c * c
        hc += h * c
    squares = tl.sum(hh, axis=0) * tl.sum(cc, axis=0)
    cosine = tl.where(squares > 0, 1 - tl.sum(hc, axis=0) / tl.sqrt(squares), float("inf"))
    return tl.where(metric == _COSINE, cosine, tl.sum(apart, axis=0))


@triton.jit
def _row(  # type: ignore[no-untyped-def]
    part, token, hidden, residual, read, slots, limits, bias, rows, decided,
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
                nearest = _nearest(hidden, residual, read, rows, bias, first, count, D, BLOCK_K, BLOCK_D)
                row = nearest + count
                metric = tl.load(slots + slot * 3 + _LIMIT)
                if metric != 0:
                    centroid = rows + nearest.to(tl.int64) * D
                    distance = _distance(hidden, residual, read, centroid, metric, D, BLOCK_D)
                    row = tl.where(distance <= tl.load(limits + nearest), row, _NOT_HERE)
                if decision < 0:
                    tl.store(decided - decision, row)
    return row


@triton.jit
def _steer(  # type: ignore[no-untyped-def]
    hidden, residual, delta, summed, entries, slots, limits, bias, rows, decided, lost, opens,
    hidden_stride, residual_stride,
    HAS_RESIDUAL: tl.constexpr, D: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    mine = entries + token * 3 * _PARTS
    hidden += token * hidden_stride
    residual += token * residual_stride
    delta += token * D
    read = 0
    if HAS_RESIDUAL:
        read = tl.where(tl.load(summed) != 0, D, 0)
    row_0 = _row(0, mine, hidden, residual, read, slots, limits, bias, rows, decided, D, BLOCK_K, BLOCK_D)
    row_1 = _row(1, mine, hidden, residual, read, slots, limits, bias, rows, decided, D, BLOCK_K, BLOCK_D)
    row_2 = _row(2, mine, hidden, residual, read, slots, limits, bias, rows, decided, D, BLOCK_K, BLOCK_D)
    row_3 = _row(3, mine, hidden, residual, read, slots, limits, bias, rows, decided, D, BLOCK_K, BLOCK_D)
    wrong = tl.zeros((BLOCK_D,), tl.int32)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        added = _added(mine, 0, row_0, rows, d, D)
        added += _added(mine, 1, row_1, rows, d, D)
        added += _added(mine, 2, row_2, rows, d, D)
        added += _added(mine, 3, row_3, rows, d, D)
        rounded = added.to(delta.dtype.element_ty)
        tl.store(delta + d, rounded, mask=d < D)
        wide = rounded.to(tl.float32)
        wrong += (wide - wide != 0).to(tl.int32)  # NaN where a number is not finite
    is_lost = tl.sum(wrong, axis=0) > 0
    if opens | is_lost:
        tl.store(lost + token, is_lost.to(tl.uint8))
    if is_lost:
        for d0 in range(0, D, BLOCK_D):
            d = d0 + tl.arange(0, BLOCK_D)
            tl.store(delta + d, tl.zeros((BLOCK_D,), delta.dtype.element_ty), mask=d < D)


@triton.jit
def _added(token, part, row, rows, d, D: tl.constexpr):  # type: ignore[no-untyped-def]
    alpha = tl.load(token + _ALPHA * _PARTS + part).to(tl.float32, bitcast=True)
    end = tl.where(row == _NOT_HERE, 0, D)
    return alpha * tl.load(rows + row.to(tl.int64) * D + d, mask=d < end, other=0.0)


def check_cache() -> None:
    """Before anything is served: see that the compiled kernel can be kept, without which Triton compiles none.

    Raises:
        StartupError: with the folder and the variable that names another.
    """
    folder = Path(triton.knobs.cache.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StartupError(
            f"Triton cannot keep the kernel of trimtab's operator in {folder} ({error.strerror}); set TRITON_CACHE_DIR "
            "to a folder that this user can write"
        ) from error


def launch(
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
    *,
    opens: bool = True,
) -> torch.Tensor:
    """As `op.steer`, whose arguments these are; the last dimension of every tensor is contiguous."""
    size = hidden.shape[-1]
    delta = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)
    other = hidden if residual is None else residual  # a kernel wants a pointer, and reads none where there is none
    if len(hidden):
        _steer[(len(hidden),)](
            hidden, other, delta, summed, entries, slots, limits, bias, rows, decided, lost, opens,
            hidden.stride(0), other.stride(0),
            HAS_RESIDUAL=residual is not None, D=size, BLOCK_K=_BLOCK_K,
            BLOCK_D=min(_BLOCK_D, triton.next_power_of_2(size)),
        )  # fmt: skip
    return delta
