"""Which row each part of a token adds, and their sum: the second kernel of the CUDA form. A program takes a token.

A decision is never read in the step that makes it (see `decisions`), so programs need not wait for each other.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_common import (
    ALPHA_AT,
    BY_COSINE,
    COUNT_AT,
    DECISION_AT,
    FIRST_AT,
    LIMIT_AT,
    NO_ROW,
    PARTS,
    SLOT_AT,
    is_read,
    stream,
)
from .triton_score import DOUBT

__all__ = ["add"]


@triton.jit
def _possible(  # type: ignore[no-untyped-def]
    scores,
    sizes,
    count,
    SPLITS: tl.constexpr,
    SIZES: tl.constexpr,
    SHARE: tl.constexpr,
    MOST: tl.constexpr,
    LANES: tl.constexpr,
):
    """bool [LANES], which centroids may have the highest score. Of one token's part."""
    lane = tl.arange(0, LANES)
    split = tl.arange(0, SPLITS)
    known = lane < count
    slices = tl.load(scores + (split[:, None] * MOST + lane[None, :]), mask=known[None, :], other=0.0)
    score = tl.sum(slices, axis=0)
    # Of slices of the width, or of shares of so many centroids each.
    size = tl.arange(0, SIZES)
    h = tl.load(sizes + size * 2, mask=size * SHARE < count, other=0.0)
    c = tl.load(sizes + size * 2 + 1, mask=size * SHARE < count, other=0.0)
    h_size = tl.sqrt(tl.max(h, axis=0) if SPLITS == 1 else tl.sum(h, axis=0))
    c_size = tl.sqrt(tl.max(c, axis=0) if SPLITS == 1 else tl.sum(c, axis=0))
    highest = tl.max(tl.where(known & (score == score), score, float("-inf")), axis=0)
    # Not the other way round: where something is NaN or infinite, all are possible.
    return known & ~(score < highest - DOUBT * (c_size * (h_size + 0.5 * c_size)))


@triton.jit
def _best(  # type: ignore[no-untyped-def]
    hidden, residual, read, rows, bias, first, start, possible,
    D: tl.constexpr, BLOCK_D: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The row of the highest score in float64 among the possible ones from start on, the lowest of equals; and it."""
    lane = tl.arange(0, LANES)
    best = tl.full((), float("-inf"), tl.float64)
    best_row = first
    k = tl.min(tl.where(possible, lane, LANES), axis=0)
    while k < LANES:
        row = first + start + k
        product = tl.zeros((BLOCK_D,), tl.float64)
        for d0 in range(0, D, BLOCK_D):
            d = d0 + tl.arange(0, BLOCK_D)
            c = tl.load(rows + row.to(tl.int64) * D + d, mask=d < D, other=0.0)
            product += stream(hidden, residual, read, d, D).to(tl.float64) * c.to(tl.float64)
        score = tl.sum(product, axis=0) - tl.load(bias + row)
        best_row = tl.where(score > best, row, best_row)  # strictly: the lowest index wins a tie
        best = tl.where(score > best, score, best)  # never NaN, which an infinite h makes of scores
        possible = possible & (lane != k)
        k = tl.min(tl.where(possible, lane, LANES), axis=0)
    return best_row, best


@triton.jit
def _nearest(  # type: ignore[no-untyped-def]
    hidden, residual, read, scores, sizes, rows, bias, first, count,
    D: tl.constexpr, SPLITS: tl.constexpr, SIZES: tl.constexpr, SHARE: tl.constexpr, MOST: tl.constexpr,
    BLOCK_D: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The row of the nearest centroid, the lowest of equals. scores, sizes: of this part."""
    best_row = first
    if count <= LANES:
        possible = _possible(scores, sizes, count, SPLITS, SIZES, SHARE, MOST, LANES)
        best_row = first + tl.min(tl.where(possible, tl.arange(0, LANES), LANES), axis=0)
        if tl.sum(possible.to(tl.int32), axis=0) > 1:
            best_row, _exact = _best(hidden, residual, read, rows, bias, first, 0, possible, D, BLOCK_D, LANES)
    elif count <= MOST:
        possible = _possible(scores, sizes, count, SPLITS, SIZES, SHARE, MOST, MOST)
        best_row = first + tl.min(tl.where(possible, tl.arange(0, MOST), MOST), axis=0)
        if tl.sum(possible.to(tl.int32), axis=0) > 1:
            best_row, _exact = _best(hidden, residual, read, rows, bias, first, 0, possible, D, BLOCK_D, MOST)
    else:  # nothing was scored
        best = tl.full((), float("-inf"), tl.float64)
        for start in range(0, count, LANES):
            row, score = _best(
                hidden, residual, read, rows, bias, first, start, start + tl.arange(0, LANES) < count, D, BLOCK_D, LANES
            )
            best_row = tl.where(score > best, row, best_row)
            best = tl.where(score > best, score, best)
    return best_row


@triton.jit
def _distance(  # type: ignore[no-untyped-def]
    hidden, residual, read, centroid, metric, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    """In float64; squared if Euclidean. Infinite, which is inside no limit, for the cosine of a zero vector."""
    apart = tl.zeros((BLOCK_D,), tl.float64)  # or the product of the two
    hh = tl.zeros((BLOCK_D,), tl.float64)
    cc = tl.zeros((BLOCK_D,), tl.float64)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        h = stream(hidden, residual, read, d, D).to(tl.float64)
        c = tl.load(centroid + d, mask=d < D, other=0.0).to(tl.float64)
        if metric == BY_COSINE:
            apart += h * c
            hh += h * h
            cc += c * c
        else:
            apart += (h - c) * (h - c)
    distance = tl.sum(apart, axis=0)
    if metric == BY_COSINE:
        squares = tl.sum(hh, axis=0) * tl.sum(cc, axis=0)
        distance = tl.where(squares > 0, 1 - distance / tl.sqrt(squares), float("inf"))
    return distance


@triton.jit
def add(  # type: ignore[no-untyped-def]
    hidden, residual, delta, summed, entries, slots, limits, bias, rows, decided, lost, counts, opens, scores,
    sizes, total, hidden_stride, residual_stride,
    HAS_RESIDUAL: tl.constexpr, EARLY: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr, SIZES: tl.constexpr,
    SHARE: tl.constexpr, MOST: tl.constexpr, BLOCK_D: tl.constexpr, EXACT_D: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """total: rows of the table. BLOCK_D: at least D. EXACT_D: numbers at a time in float64. EARLY: this starts before
    all scores are there."""
    token = tl.program_id(0).to(tl.int64)
    mine = entries + token * 3 * PARTS
    hidden += token * hidden_stride
    residual += token * residual_stride
    d = tl.arange(0, BLOCK_D)
    added = tl.zeros((BLOCK_D,), tl.float32)
    for part in range(PARTS):
        slot = tl.load(mine + SLOT_AT * PARTS + part)
        if slot != 0:
            alpha = tl.load(mine + ALPHA_AT * PARTS + part).to(tl.float32, bitcast=True)
            decision = tl.load(mine + DECISION_AT * PARTS + part)
            first = tl.load(slots + slot * 3 + FIRST_AT)
            count = tl.load(slots + slot * 3 + COUNT_AT)
            row = first
            if count > 0:
                if decision > 0:
                    row = tl.load(decided + decision)
                else:
                    if EARLY:
                        tl.extra.cuda.gdc_wait()
                    at = token * PARTS + part
                    read = is_read(summed, HAS_RESIDUAL)
                    nearest = _nearest(
                        hidden, residual, read, scores + at * (SPLITS * MOST), sizes + at * (SIZES * 2), rows, bias,
                        first, count, D, SPLITS, SIZES, SHARE, MOST, EXACT_D, LANES,
                    )  # fmt: skip
                    row = nearest + count
                    metric = tl.load(slots + slot * 3 + LIMIT_AT)
                    if metric != 0:
                        centroid = rows + nearest.to(tl.int64) * D
                        distance = _distance(hidden, residual, read, centroid, metric, D, EXACT_D)
                        row = tl.where(distance <= tl.load(limits + nearest), row, NO_ROW)
                    if decision < 0:
                        tl.store(decided - decision, row)
                place = tl.where(row == NO_ROW, first, row) + tl.where(decision > 0, total, 0)
                tl.atomic_add(counts + place, 1, sem="relaxed")
            if row != NO_ROW:
                added += alpha * tl.load(rows + row.to(tl.int64) * D + d, mask=d < D, other=0.0)
    rounded = added.to(delta.dtype.element_ty)
    delta += token * D + d
    tl.store(delta, rounded, mask=d < D)
    wide = rounded.to(tl.float32)
    is_lost = tl.max((wide - wide != 0).to(tl.int32), axis=0) > 0  # NaN where a number is not finite
    if opens | is_lost:
        tl.store(lost + token, is_lost.to(tl.uint8))
    if is_lost:
        tl.store(delta, tl.zeros_like(rounded), mask=d < D)
    if EARLY:
        tl.extra.cuda.gdc_wait()  # no later kernel may change what the scores are still read from
