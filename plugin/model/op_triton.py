"""The CUDA form of the op: two kernels, static in shape, free of synchronisation, fit for CUDA graphs.

`_score` takes a block of tokens and a slice of the width. For each fine profile that decides on one of these tokens it
adds up, over its slice, the scores of all centroids against all of these tokens at once, so that a centroid is read
once per block. `_add` takes a token: it adds the slices up, always in the same order, chooses a row for each part, and
writes the sum. An unsteered token costs its zeros. A decision is never read in the step that makes it (see
`decisions`), so programs need not wait for each other; on devices that can, `_add` starts while `_score` ends.

A gate decides in float64, which most GPUs compute slowly. So `_score` computes in float32, on tensor cores, three TF32
products to each. It measures from the profile's first centroid o, so that what h and all centroids have in common
cancels:

    score_k − score_o = (c_k − o)·(h − o) − ½‖c_k − o‖²

Its error is at most a few roundings of ‖c_k − o‖ (‖h − o‖ + ½‖c_k − o‖), see `_DOUBT`. Where the best score leads
another by more than twice that, it is higher in exact numbers too. Those that it does not lead by so much are computed
again, in float64.
"""

from __future__ import annotations

import functools
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

_BLOCK_K, _BLOCK_D, _WARPS = 64, 32, 4
_ROW = 4096
_MOST_SCORED = 256

# What a kernel reads of the module must be marked as constant.
_SLOT, _ALPHA, _DECISION = tl.constexpr(SLOT), tl.constexpr(ALPHA), tl.constexpr(DECISION)
_FIRST, _COUNT, _LIMIT = tl.constexpr(FIRST), tl.constexpr(COUNT), tl.constexpr(LIMIT)
_EUCLIDEAN, _COSINE, _NOT_HERE = tl.constexpr(EUCLIDEAN), tl.constexpr(COSINE), tl.constexpr(NOT_HERE)
_PARTS = tl.constexpr(MOST_PROFILES)

# Twice the error of a score, in units of ‖c − o‖ (‖h − o‖ + ½‖c − o‖). A product made of three is off by 2⁻²⁰, and a
# sum by 2⁻²³ per addition that a number passes through: 3/8 of the numbers of a chunk of a slice (below 200), then the
# chunks and the slices (below 64). That is below 2⁻¹⁵; the rest is margin.
_DOUBT = tl.constexpr(2.0**-13)
_CHUNK = tl.constexpr(512)


@triton.jit
def _stream(hidden, residual, read, d, D: tl.constexpr):  # type: ignore[no-untyped-def]
    """`read`: not 0 where the residual is a part of the stream; else it is not loaded, whatever is in it."""
    h = tl.load(hidden + d, mask=d < D, other=0.0).to(tl.float32)
    return h + tl.load(residual + d, mask=tl.where(d < D, read, 0) != 0, other=0.0).to(tl.float32)


@triton.jit
def _is_read(summed, HAS_RESIDUAL: tl.constexpr):  # type: ignore[no-untyped-def]
    read = 0
    if HAS_RESIDUAL:
        read = tl.load(summed).to(tl.int32)
    return read


@triton.jit(do_not_specialize=["tokens"])
def _score(  # type: ignore[no-untyped-def]
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
    part = tl.arange(0, _PARTS)
    mine = entries + start * (3 * _PARTS) + (token[:, None] * (3 * _PARTS) + part[None, :])
    slot = tl.load(mine + _SLOT * _PARTS, mask=here[:, None], other=0)
    decision = tl.load(mine + _DECISION * _PARTS, mask=here[:, None], other=0)
    count = tl.load(slots + slot * 3 + _COUNT, mask=slot != 0, other=0)
    waiting = tl.where((count > 0) & (count <= MOST) & (decision <= 0), slot, 0)
    now = tl.max(waiting)
    if now > 0:
        read = _is_read(summed, HAS_RESIDUAL)
        hidden += start * hidden_stride
        residual += start * residual_stride
        scores += (start * (_PARTS * SPLITS) + split) * MOST
        sizes += (start * (_PARTS * SPLITS) + split) * 2
        while now > 0:
            asks = waiting == now
            _score_profile(
                hidden, residual, read, slots + now * 3, rows, scores, sizes, asks, split * slice_size, slice_size,
                hidden_stride, residual_stride, D, SPLITS, MOST, BLOCK_T, BLOCK_K, BLOCK_D,
            )  # fmt: skip
            waiting = tl.where(asks, 0, waiting)
            now = tl.max(waiting)


@triton.jit
def _score_profile(  # type: ignore[no-untyped-def]
    hidden, residual, read, profile, rows, scores, sizes, asks, begin, slice_size, hidden_stride, residual_stride,
    D: tl.constexpr, SPLITS: tl.constexpr, MOST: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """asks: [BLOCK_T, P], which parts of the block's tokens decide by this profile."""
    count = tl.load(profile + _COUNT)
    origin = rows + tl.load(profile + _FIRST).to(tl.int64) * D
    end = tl.minimum(begin + slice_size, D)
    token = tl.arange(0, BLOCK_T)[:, None]
    part = tl.arange(0, _PARTS)[None, :]
    mine = (tl.max(asks.to(tl.int32), axis=1) > 0)[:, None]
    largest = 0.0
    hh = tl.zeros((BLOCK_T,), tl.float32)
    for k0 in range(0, count, BLOCK_K):
        k = tl.arange(0, BLOCK_K)
        known = k0 + k < count
        centroids = origin + k0 * D
        score = tl.zeros((BLOCK_T, BLOCK_K), tl.float32)
        cc = tl.zeros((BLOCK_K,), tl.float32)
        hh = tl.zeros((BLOCK_T,), tl.float32)
        for chunk in range(begin, end, _CHUNK):
            summed = tl.zeros((BLOCK_T, BLOCK_K), tl.float32)
            for d0 in range(chunk, tl.minimum(chunk + _CHUNK, end), BLOCK_D):
                d = d0 + tl.arange(0, BLOCK_D)
                inside = mine & (d < end)[None, :]
                h = tl.load(hidden + (token * hidden_stride + d[None, :]), mask=inside, other=0.0).to(tl.float32)
                also = tl.where(inside, read, 0) != 0
                h += tl.load(residual + (token * residual_stride + d[None, :]), mask=also, other=0.0).to(tl.float32)
                o = tl.load(origin + d, mask=d < end, other=0.0)[None, :]
                h -= o
                there = known[:, None] & (d < end)[None, :]
                c = tl.load(centroids + (k[:, None] * D + d[None, :]), mask=there, other=0.0)
                c = tl.where(there, c - o, 0.0)
                summed = tl.dot(h, tl.trans(c), summed, input_precision="tf32x3")
                cc += tl.sum(c * c, axis=1)
                hh += tl.sum(h * h, axis=1)
            score += summed
        score -= 0.5 * cc[None, :]
        largest = tl.maximum(largest, tl.max(cc, axis=0))
        for number in tl.static_range(_PARTS):
            wants = tl.max((asks & (part == number)).to(tl.int32), axis=1) > 0
            place = (token * _PARTS + number) * (SPLITS * MOST) + k0 + k[None, :]
            tl.store(scores + place, score, mask=wants[:, None] & known[None, :])
    place = (token * _PARTS + part) * (SPLITS * 2)
    tl.store(sizes + place, tl.broadcast_to(hh[:, None], BLOCK_T, _PARTS), mask=asks)
    tl.store(sizes + place + 1, tl.full((BLOCK_T, _PARTS), 0.0, tl.float32) + largest, mask=asks)


@triton.jit
def _nearest(  # type: ignore[no-untyped-def]
    hidden, residual, read, scores, sizes, rows, bias, first, count, at,
    D: tl.constexpr, SPLITS: tl.constexpr, MOST: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The row of the nearest centroid, the lowest of equals. at: the number of the token's part."""
    split = at * SPLITS + tl.arange(0, SPLITS)
    lane = tl.arange(0, MOST)
    best_row = first
    best = tl.full((), float("-inf"), tl.float64)
    for k0 in range(0, count, MOST):
        possible = k0 + lane < count
        scored = count <= MOST
        if scored:
            partial = tl.load(scores + split[:, None] * MOST + lane[None, :], mask=possible[None, :], other=0.0)
            score = tl.sum(partial, axis=0)
            h = tl.sqrt(tl.sum(tl.load(sizes + split * 2), axis=0))
            c = tl.sqrt(tl.sum(tl.load(sizes + split * 2 + 1), axis=0))
            highest = tl.max(tl.where(possible & (score == score), score, float("-inf")), axis=0)
            # Not the other way round: where something is NaN or infinite, all are possible.
            possible = possible & ~(score < highest - _DOUBT * (c * (h + 0.5 * c)))
        left = tl.sum(possible.to(tl.int32), axis=0)
        if scored & (left == 1):
            best_row = first + tl.min(tl.where(possible, lane, MOST), axis=0)
            left = 0
        while left > 0:
            k = tl.min(tl.where(possible, lane, MOST), axis=0)
            row = first + k0 + k
            exact = _exact(hidden, residual, read, rows + row.to(tl.int64) * D, D, BLOCK_D) - tl.load(bias + row)
            best_row = tl.where(exact > best, row, best_row)  # strictly: the lowest index wins a tie
            best = tl.where(exact > best, exact, best)  # not NaN, which an infinite h makes of scores
            possible = possible & (lane != k)
            left -= 1
    return best_row


@triton.jit
def _exact(hidden, residual, read, centroid, D: tl.constexpr, BLOCK_D: tl.constexpr):  # type: ignore[no-untyped-def]
    """h·c in float64."""
    product = tl.zeros((BLOCK_D,), tl.float64)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        c = tl.load(centroid + d, mask=d < D, other=0.0)
        product += _stream(hidden, residual, read, d, D).to(tl.float64) * c.to(tl.float64)
    return tl.sum(product, axis=0)


@triton.jit
def _distance(  # type: ignore[no-untyped-def]
    hidden, residual, read, centroid, metric, D: tl.constexpr, BLOCK_D: tl.constexpr
):
    """In float64; squared if Euclidean. Infinite, which is inside no limit, for the cosine of a zero vector."""
    found = tl.full((), float("inf"), tl.float64)
    if metric == _COSINE:
        hh = tl.zeros((BLOCK_D,), tl.float64)
        cc = tl.zeros((BLOCK_D,), tl.float64)
        for d0 in range(0, D, BLOCK_D):
            d = d0 + tl.arange(0, BLOCK_D)
            h = _stream(hidden, residual, read, d, D).to(tl.float64)
            c = tl.load(centroid + d, mask=d < D, other=0.0).to(tl.float64)
            hh += h * h
            cc += c * c
        squares = tl.sum(hh, axis=0) * tl.sum(cc, axis=0)
        product = _exact(hidden, residual, read, centroid, D, BLOCK_D)
        found = tl.where(squares > 0, 1 - product / tl.sqrt(squares), float("inf"))
    else:
        apart = tl.zeros((BLOCK_D,), tl.float64)
        for d0 in range(0, D, BLOCK_D):
            d = d0 + tl.arange(0, BLOCK_D)
            c = tl.load(centroid + d, mask=d < D, other=0.0).to(tl.float64)
            difference = _stream(hidden, residual, read, d, D).to(tl.float64) - c
            apart += difference * difference
        found = tl.sum(apart, axis=0)
    return found


@triton.jit
def _entry(token, part: tl.constexpr):  # type: ignore[no-untyped-def]
    """Slot, strength and decision of a token's part."""
    alpha = tl.load(token + _ALPHA * _PARTS + part).to(tl.float32, bitcast=True)
    return tl.load(token + _SLOT * _PARTS + part), alpha, tl.load(token + _DECISION * _PARTS + part)


@triton.jit
def _row(  # type: ignore[no-untyped-def]
    at, slot, decision, hidden, residual, read, scores, sizes, slots, limits, bias, rows, decided,
    D: tl.constexpr, SPLITS: tl.constexpr, MOST: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The row that a part adds to a token, or NOT_HERE. at: the number of the token's part."""
    row = _NOT_HERE
    if slot != 0:
        first = tl.load(slots + slot * 3 + _FIRST)
        count = tl.load(slots + slot * 3 + _COUNT)
        row = first
        if count > 0:
            if decision > 0:
                row = tl.load(decided + decision)
            else:
                nearest = _nearest(
                    hidden, residual, read, scores, sizes, rows, bias, first, count, at, D, SPLITS, MOST, BLOCK_D
                )
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
def _scaled(alpha, row, rows, d, D: tl.constexpr):  # type: ignore[no-untyped-def]
    here = tl.where(d < D, row, _NOT_HERE) != _NOT_HERE
    return alpha * tl.load(rows + row.to(tl.int64) * D + d, mask=here, other=0.0)


@triton.jit
def _add(  # type: ignore[no-untyped-def]
    hidden, residual, delta, summed, entries, slots, limits, bias, rows, decided, lost, opens, scores, sizes,
    hidden_stride, residual_stride,
    HAS_RESIDUAL: tl.constexpr, EARLY: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr, MOST: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """EARLY: this was started before `_score` has ended."""
    token = tl.program_id(0).to(tl.int64)
    mine = entries + token * 3 * _PARTS
    slot_0, alpha_0, decision_0 = _entry(mine, 0)
    slot_1, alpha_1, decision_1 = _entry(mine, 1)
    slot_2, alpha_2, decision_2 = _entry(mine, 2)
    slot_3, alpha_3, decision_3 = _entry(mine, 3)
    read = _is_read(summed, HAS_RESIDUAL)
    hidden += token * hidden_stride
    residual += token * residual_stride
    delta += token * D
    at = token * _PARTS
    if EARLY:
        tl.extra.cuda.gdc_wait()
    row_0 = _row(
        at, slot_0, decision_0, hidden, residual, read, scores, sizes, slots, limits, bias, rows, decided,
        D, SPLITS, MOST, BLOCK_D,
    )  # fmt: skip
    row_1 = _row(
        at + 1, slot_1, decision_1, hidden, residual, read, scores, sizes, slots, limits, bias, rows, decided,
        D, SPLITS, MOST, BLOCK_D,
    )  # fmt: skip
    row_2 = _row(
        at + 2, slot_2, decision_2, hidden, residual, read, scores, sizes, slots, limits, bias, rows, decided,
        D, SPLITS, MOST, BLOCK_D,
    )  # fmt: skip
    row_3 = _row(
        at + 3, slot_3, decision_3, hidden, residual, read, scores, sizes, slots, limits, bias, rows, decided,
        D, SPLITS, MOST, BLOCK_D,
    )  # fmt: skip
    wrong = tl.zeros((BLOCK_D,), tl.int32)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        added = _scaled(alpha_0, row_0, rows, d, D)
        added += _scaled(alpha_1, row_1, rows, d, D)
        added += _scaled(alpha_2, row_2, rows, d, D)
        added += _scaled(alpha_3, row_3, rows, d, D)
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


@functools.cache
def _processors(device: torch.device) -> tuple[int, bool]:
    """How many multiprocessors a device has, and whether it can start a kernel before the last one has ended."""
    if device.type != "cuda":
        return 8, False  # the interpreter
    found = torch.cuda.get_device_properties(device)
    return found.multi_processor_count, found.major >= 9


def _plan(tokens: int, size: int, processors: int) -> tuple[int, int]:
    """How many tokens a block has, and into how many slices the width is cut (a power of two): about as many programs
    as multiprocessors."""
    block = 16 if tokens <= 64 else 32 if tokens <= 512 else 64
    each = max(processors // triton.cdiv(tokens, block), 1)
    return block, min(1 << each.bit_length() - 1, triton.next_power_of_2(triton.cdiv(size, _BLOCK_D)))


def _slice_size(size: int, splits: int) -> int:
    return int(triton.cdiv(triton.cdiv(size, _BLOCK_D), splits) * _BLOCK_D)


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
    tokens, size = hidden.shape
    delta = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)
    if not tokens:
        return delta
    other = hidden if residual is None else residual  # a kernel wants a pointer, and reads none where there is none
    processors, early = _processors(hidden.device)
    block, splits = _plan(tokens, size, processors)
    # A table of R rows has no profile of more than R / 2 concepts. Scores of more than that are computed by `_add`.
    most = max(16, min(triton.next_power_of_2(len(rows) // 2), _MOST_SCORED))
    scores = torch.empty((tokens, MOST_PROFILES, splits, most), dtype=torch.float32, device=hidden.device)
    sizes = torch.empty((tokens, MOST_PROFILES, splits, 2), dtype=torch.float32, device=hidden.device)
    strides = hidden.stride(0), other.stride(0)
    forms = {"HAS_RESIDUAL": residual is not None, "EARLY": early, "D": size, "SPLITS": splits, "MOST": most}
    _score[(triton.cdiv(tokens, block), splits)](
        hidden, other, summed, entries, slots, rows, scores, sizes, tokens, _slice_size(size, splits),
        *strides, **forms, BLOCK_T=block, BLOCK_K=_BLOCK_K, BLOCK_D=_BLOCK_D, num_warps=_WARPS,
    )  # fmt: skip
    _add[(tokens,)](
        hidden, other, delta, summed, entries, slots, limits, bias, rows, decided, lost, opens, scores, sizes,
        *strides, **forms, BLOCK_D=min(_ROW, triton.next_power_of_2(size)), num_warps=8, enable_fp_fusion=False,
        **({"launch_pdl": True} if early else {}),
    )  # fmt: skip
    return delta
