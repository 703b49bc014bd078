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
_LANES, _EXACT, _ADD_WARPS = 64, 1024, 4
_FEW, _SHARES, _TILE = 16, 16, 1 << 14
_MOST_SCORED, _MOST_SPLITS = 256, 32

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
def _is_read(summed, HAS_RESIDUAL: tl.constexpr):  # type: ignore[no-untyped-def]
    """Not 0 where the residual is a part of the stream; else it is not loaded, whatever is in it."""
    read = 0
    if HAS_RESIDUAL:
        read = tl.load(summed).to(tl.int32)
    return read


@triton.jit
def _stream(hidden, residual, read, d, D: tl.constexpr):  # type: ignore[no-untyped-def]
    h = tl.load(hidden + d, mask=d < D, other=0.0).to(tl.float32)
    return h + tl.load(residual + d, mask=tl.where(d < D, read, 0) != 0, other=0.0).to(tl.float32)


@triton.jit
def _score_few(  # type: ignore[no-untyped-def]
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
    mine = entries + token * 3 * _PARTS
    d = tl.arange(0, BLOCK_D)
    lane = tl.arange(0, BLOCK_K)
    for part in range(_PARTS):
        slot = tl.load(mine + _SLOT * _PARTS + part)
        if slot != 0:
            count = tl.load(slots + slot * 3 + _COUNT)
            decision = tl.load(mine + _DECISION * _PARTS + part)
            if (share * BLOCK_K < count) & (count <= MOST) & (decision <= 0):
                origin = rows + tl.load(slots + slot * 3 + _FIRST).to(tl.int64) * D
                o = tl.load(origin + d, mask=d < D, other=0.0)
                read = _is_read(summed, HAS_RESIDUAL)
                h = _stream(hidden + token * hidden_stride, residual + token * residual_stride, read, d, D) - o
                at = token * _PARTS + part
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
    for part in range(_PARTS):
        mine = entries + start * (3 * _PARTS) + (token * (3 * _PARTS) + part)
        slot = tl.load(mine + _SLOT * _PARTS, mask=here, other=0)
        decision = tl.load(mine + _DECISION * _PARTS, mask=here, other=0)
        count = tl.load(slots + slot * 3 + _COUNT, mask=slot != 0, other=0)
        waiting = tl.where((count > 0) & (count <= MOST) & (decision <= 0), slot, 0)
        now = tl.max(waiting, axis=0)
        while now > 0:
            asks = waiting == now
            place = (start * _PARTS + part) * SPLITS + split
            _score_profile(
                hidden + start * hidden_stride, residual + start * residual_stride, _is_read(summed, HAS_RESIDUAL),
                rows + tl.load(slots + now * 3 + _FIRST).to(tl.int64) * D, tl.load(slots + now * 3 + _COUNT),
                scores + place * MOST, sizes + place * 2, asks, tl.minimum(tokens - start, BLOCK_T).to(tl.int32),
                split * slice_size, slice_size, hidden_stride, residual_stride, D, SPLITS, MOST, BLOCK_T, BLOCK_K,
                BLOCK_D,
            )  # fmt: skip
            waiting = tl.where(asks, 0, waiting)
            now = tl.max(waiting, axis=0)


@triton.jit
def _score_profile(  # type: ignore[no-untyped-def]
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
        for chunk in range(begin, end, _CHUNK):
            summed = tl.zeros((BLOCK_T, BLOCK_K), tl.float32)
            for d0 in range(chunk, tl.minimum(chunk + _CHUNK, end), BLOCK_D):
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
        place = token[:, None] * (_PARTS * SPLITS * MOST) + (k0 + lane)[None, :]
        tl.store(scores + place, score, mask=asks[:, None] & (k0 + lane < count)[None, :])
    place = sizes + token * (_PARTS * SPLITS * 2)
    tl.store(place, tl.sum(hh, axis=1), mask=asks)
    tl.store(place + 1, tl.zeros((BLOCK_T,), tl.float32) + largest, mask=asks)


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
    return known & ~(score < highest - _DOUBT * (c_size * (h_size + 0.5 * c_size)))


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
            product += _stream(hidden, residual, read, d, D).to(tl.float64) * c.to(tl.float64)
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
            best_row, _score = _best(hidden, residual, read, rows, bias, first, 0, possible, D, BLOCK_D, LANES)
    elif count <= MOST:
        possible = _possible(scores, sizes, count, SPLITS, SIZES, SHARE, MOST, MOST)
        best_row = first + tl.min(tl.where(possible, tl.arange(0, MOST), MOST), axis=0)
        if tl.sum(possible.to(tl.int32), axis=0) > 1:
            best_row, _score = _best(hidden, residual, read, rows, bias, first, 0, possible, D, BLOCK_D, MOST)
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
        h = _stream(hidden, residual, read, d, D).to(tl.float64)
        c = tl.load(centroid + d, mask=d < D, other=0.0).to(tl.float64)
        if metric == _COSINE:
            apart += h * c
            hh += h * h
            cc += c * c
        else:
            apart += (h - c) * (h - c)
    distance = tl.sum(apart, axis=0)
    if metric == _COSINE:
        squares = tl.sum(hh, axis=0) * tl.sum(cc, axis=0)
        distance = tl.where(squares > 0, 1 - distance / tl.sqrt(squares), float("inf"))
    return distance


@triton.jit
def _add(  # type: ignore[no-untyped-def]
    hidden, residual, delta, summed, entries, slots, limits, bias, rows, decided, lost, opens, scores, sizes,
    hidden_stride, residual_stride,
    HAS_RESIDUAL: tl.constexpr, EARLY: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr, SIZES: tl.constexpr,
    SHARE: tl.constexpr, MOST: tl.constexpr, BLOCK_D: tl.constexpr, EXACT_D: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """BLOCK_D: at least D. EXACT_D: numbers at a time in float64. EARLY: this was started before `_score` has ended."""
    token = tl.program_id(0).to(tl.int64)
    mine = entries + token * 3 * _PARTS
    hidden += token * hidden_stride
    residual += token * residual_stride
    d = tl.arange(0, BLOCK_D)
    added = tl.zeros((BLOCK_D,), tl.float32)
    for part in range(_PARTS):
        slot = tl.load(mine + _SLOT * _PARTS + part)
        if slot != 0:
            alpha = tl.load(mine + _ALPHA * _PARTS + part).to(tl.float32, bitcast=True)
            decision = tl.load(mine + _DECISION * _PARTS + part)
            first = tl.load(slots + slot * 3 + _FIRST)
            count = tl.load(slots + slot * 3 + _COUNT)
            row = first
            if count > 0:
                if decision > 0:
                    row = tl.load(decided + decision)
                else:
                    if EARLY:
                        tl.extra.cuda.gdc_wait()
                    at = token * _PARTS + part
                    read = _is_read(summed, HAS_RESIDUAL)
                    nearest = _nearest(
                        hidden, residual, read, scores + at * (SPLITS * MOST), sizes + at * (SIZES * 2), rows, bias,
                        first, count, D, SPLITS, SIZES, SHARE, MOST, EXACT_D, LANES,
                    )  # fmt: skip
                    row = nearest + count
                    metric = tl.load(slots + slot * 3 + _LIMIT)
                    if metric != 0:
                        centroid = rows + nearest.to(tl.int64) * D
                        distance = _distance(hidden, residual, read, centroid, metric, D, EXACT_D)
                        row = tl.where(distance <= tl.load(limits + nearest), row, _NOT_HERE)
                    if decision < 0:
                        tl.store(decided - decision, row)
            if row != _NOT_HERE:
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
    return block, min(1 << each.bit_length() - 1, triton.next_power_of_2(triton.cdiv(size, _BLOCK_D)), _MOST_SPLITS)


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
    # A table of R rows has no profile of more than R / 2 concepts. Scores of more than that are computed by `_add`.
    most = max(_LANES, min(triton.next_power_of_2(len(rows) // 2), _MOST_SCORED))
    strides = hidden.stride(0), other.stride(0)
    given = hidden, other, summed, entries, slots, rows
    forms = {"HAS_RESIDUAL": residual is not None, "EARLY": early, "D": size, "MOST": most}
    row = triton.next_power_of_2(size)
    if tokens <= _FEW:
        block, splits, shares, share = 1, 1, _SHARES, max(1, _TILE // row)
    else:
        block, splits = _plan(tokens, size, processors)
        shares, share = splits, 0
    scores = torch.empty((tokens, MOST_PROFILES, splits, most), dtype=torch.float32, device=hidden.device)
    sizes = torch.empty((tokens, MOST_PROFILES, shares, 2), dtype=torch.float32, device=hidden.device)
    if tokens <= _FEW:
        _score_few[(tokens, shares)](
            *given, scores, sizes, *strides, **forms, SHARES=shares, BLOCK_K=share, BLOCK_D=row,
            num_warps=8,
        )  # fmt: skip
    else:
        _score[(triton.cdiv(tokens, block), splits)](
            *given, scores, sizes, tokens, _slice_size(size, splits), *strides, **forms, SPLITS=splits,
            BLOCK_T=block, BLOCK_K=_BLOCK_K, BLOCK_D=_BLOCK_D, num_warps=_WARPS,
        )  # fmt: skip
    _add[(tokens,)](
        hidden, other, delta, summed, entries, slots, limits, bias, rows, decided, lost, opens, scores, sizes,
        *strides, **forms, SPLITS=splits, SIZES=shares, SHARE=share, BLOCK_D=row, EXACT_D=min(row, _EXACT),
        LANES=_LANES, num_warps=_ADD_WARPS, enable_fp_fusion=False,
        **({"launch_pdl": True} if early else {}),
    )  # fmt: skip
    return delta
