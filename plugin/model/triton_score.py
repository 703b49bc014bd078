"""How near the stream of each token is to the centroids of its fine profiles: the first kernel of the CUDA form.

Where there are few tokens, a program takes a token and a share of the centroids (`score_few`), so that even one token
keeps many multiprocessors busy. Else it takes a block of tokens and a slice of the width (`score_many`): for each
profile that decides on one of these tokens it adds up, over its slice, the scores of all centroids against all of these
tokens at once, on tensor cores, so that a centroid is read once per block.

A gate decides in float64, which most GPUs compute slowly. So scores are computed in float32 first, measured from the
profile's first centroid o, in which what h and all centroids have in common cancels:

    score_k − score_o = (c_k − o)·(h − o) − ½‖c_k − o‖²

Its error is at most a few roundings of ‖c_k − o‖ (‖h − o‖ + ½‖c_k − o‖). The kernels leave these sizes beside the
scores; `triton_add` computes those again, in float64, that lie too close together.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_common import COUNT_AT, DECISION_AT, FIRST_AT, PARTS, SLOT_AT, is_read, stream

__all__ = ["DOUBT", "score_few", "score_many"]

# Twice the error of a score, in units of ‖c − o‖ (‖h − o‖ + ½‖c − o‖). A product made of three is off by 2⁻²⁰, and a
# sum by 2⁻²³ per addition that a number passes through: 3/8 of the numbers of a chunk of a slice (below 200), then the
# chunks and the slices (below 64). That is below 2⁻¹⁵; the rest is margin.
DOUBT = tl.constexpr(2.0**-13)
CHUNK = tl.constexpr(512)


@triton.jit
def score_few(  # type: ignore[no-untyped-def]
    hidden, residual, summed, entries, slots, rows, scores, sizes, hidden_stride, residual_stride,
    HAS_RESIDUAL: tl.constexpr, EARLY: tl.constexpr, D: tl.constexpr, SHARES: tl.constexpr, MOST: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """scores: float32 [T, P, 1, MOST]. sizes: float32 [T, P, SHARES, 2], ‖h − o‖² and the largest ‖c − o‖² of each
    share of the centroids. BLOCK_D: at least D."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    token = tl.program_id(0).to(tl.int64)
    share = tl.program_id(1)
    mine = entries + token * 3 * PARTS
    d = tl.arange(0, BLOCK_D)
    lane = tl.arange(0, BLOCK_K)
    for part in range(PARTS):
        slot = tl.load(mine + SLOT_AT * PARTS + part)
        if slot != 0:
            count = tl.load(slots + slot * 3 + COUNT_AT)
            decision = tl.load(mine + DECISION_AT * PARTS + part)
            if (share * BLOCK_K < count) & (count <= MOST) & (decision <= 0):
                origin = rows + tl.load(slots + slot * 3 + FIRST_AT).to(tl.int64) * D
                o = tl.load(origin + d, mask=d < D, other=0.0)
                read = is_read(summed, HAS_RESIDUAL)
                h = stream(hidden + token * hidden_stride, residual + token * residual_stride, read, d, D) - o
                at = token * PARTS + part
                largest = 0.0
                for k0 in range(share * BLOCK_K, count, SHARES * BLOCK_K):
                    k = tl.minimum(k0 + lane, count - 1)  # one twice is no harm
                    c = tl.load(origin + (k[:, None] * D + d[None, :]), mask=(d < D)[None, :], other=0.0) - o[None, :]
                    tl.store(scores + at * MOST + k, tl.sum(c * (h[None, :] - 0.5 * c), axis=1))
                    largest = tl.maximum(largest, tl.max(tl.sum(c * c, axis=1), axis=0))
                place = sizes + (at * SHARES + share) * 2
                tl.store(place, tl.sum(h * h, axis=0))
                tl.store(place + 1, largest)


@triton.jit(do_not_specialize=["tokens"])
def score_many(  # type: ignore[no-untyped-def]
    hidden, residual, summed, entries, slots, rows, scores, sizes, tokens, slice_size, hidden_stride, residual_stride,
    HAS_RESIDUAL: tl.constexpr, EARLY: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr, MOST: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """scores: float32 [T, P, SPLITS, MOST]. sizes: float32 [T, P, SPLITS, 2], of the slices ‖h − o‖² and the largest
    ‖c − o‖². EARLY: let the next kernel start as soon as it can."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    start = tl.program_id(0).to(tl.int64) * BLOCK_T
    split = tl.program_id(1)
    token = tl.arange(0, BLOCK_T)
    here = start + token < tokens
    for part in range(PARTS):
        mine = entries + start * (3 * PARTS) + (token * (3 * PARTS) + part)
        slot = tl.load(mine + SLOT_AT * PARTS, mask=here, other=0)
        decision = tl.load(mine + DECISION_AT * PARTS, mask=here, other=0)
        count = tl.load(slots + slot * 3 + COUNT_AT, mask=slot != 0, other=0)
        waiting = tl.where((count > 0) & (count <= MOST) & (decision <= 0), slot, 0)
        now = tl.max(waiting, axis=0)
        while now > 0:
            asks = waiting == now
            place = (start * PARTS + part) * SPLITS + split
            _profile(
                hidden + start * hidden_stride, residual + start * residual_stride, is_read(summed, HAS_RESIDUAL),
                rows + tl.load(slots + now * 3 + FIRST_AT).to(tl.int64) * D, tl.load(slots + now * 3 + COUNT_AT),
                scores + place * MOST, sizes + place * 2, asks, tl.minimum(tokens - start, BLOCK_T).to(tl.int32),
                split * slice_size, slice_size, hidden_stride, residual_stride, D, SPLITS, MOST, BLOCK_T, BLOCK_K,
                BLOCK_D,
            )  # fmt: skip
            waiting = tl.where(asks, 0, waiting)
            now = tl.max(waiting, axis=0)


@triton.jit
def _profile(  # type: ignore[no-untyped-def]
    hidden, residual, read, origin, count, scores, sizes, asks, tokens, begin, slice_size, hidden_stride,
    residual_stride, D: tl.constexpr, SPLITS: tl.constexpr, MOST: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """asks: [BLOCK_T], the tokens that decide by this profile. The others' scores, and those of more centroids than
    there are, are computed as well, of rows that exist, and thrown away: a mask costs more."""
    token = tl.arange(0, BLOCK_T)
    lane = tl.arange(0, BLOCK_K)
    column = tl.arange(0, BLOCK_D)
    end = tl.minimum(begin + slice_size, D)
    EVEN: tl.constexpr = D % BLOCK_D == 0
    at = tl.minimum(token, tokens - 1)[:, None]
    largest = 0.0
    hh = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    for k0 in range(0, count, BLOCK_K):
        k = tl.minimum(k0 + lane, count - 1)[:, None]
        score = tl.zeros((BLOCK_T, BLOCK_K), tl.float32)
        cc = tl.zeros((BLOCK_K, BLOCK_D), tl.float32)
        hh = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
        for chunk in range(begin, end, CHUNK):
            summed = tl.zeros((BLOCK_T, BLOCK_K), tl.float32)
            for d0 in range(chunk, tl.minimum(chunk + CHUNK, end), BLOCK_D):
                d = d0 + column
                inside = (tl.zeros((BLOCK_D,), tl.int32) == 0) if EVEN else d < end
                o = tl.load(origin + d, mask=inside, other=0.0)[None, :]
                c = tl.load(origin + (k * D + d[None, :]), mask=inside[None, :], other=0.0) - o
                h = tl.load(hidden + (at * hidden_stride + d[None, :]), mask=inside[None, :], other=0.0).to(tl.float32)
                also = tl.where(inside, read, 0)[None, :] != 0
                h += tl.load(residual + (at * residual_stride + d[None, :]), mask=also, other=0.0).to(tl.float32)
                h -= o
                summed = tl.dot(h, tl.trans(c), summed, input_precision="tf32x3")
                cc += c * c
                hh += h * h
            score += summed
        sizes_of_c = tl.sum(cc, axis=1)
        score -= 0.5 * sizes_of_c[None, :]
        largest = tl.maximum(largest, tl.max(sizes_of_c, axis=0))
        place = token[:, None] * (PARTS * SPLITS * MOST) + (k0 + lane)[None, :]
        tl.store(scores + place, score, mask=asks[:, None] & (k0 + lane < count)[None, :])
    place = sizes + token * (PARTS * SPLITS * 2)
    tl.store(place, tl.sum(hh, axis=1), mask=asks)
    tl.store(place + 1, tl.zeros((BLOCK_T,), tl.float32) + largest, mask=asks)
