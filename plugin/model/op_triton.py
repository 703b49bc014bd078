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
_LANES = 64
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
def _stream(hidden, residual, read, d, D: tl.constexpr):  # type: ignore[no-untyped-def]
    h = tl.load(hidden + d, mask=d < D, other=0.0).to(tl.float32)
    return h + tl.load(residual + d, mask=tl.where(d < D, read, 0) != 0, other=0.0).to(tl.float32)


@triton.jit
def _nearest(  # type: ignore[no-untyped-def]
    h, d, scores, sizes, rows, bias, first, count,
    D: tl.constexpr, SPLITS: tl.constexpr, MOST: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The row of the nearest centroid, the lowest of equals. h: the stream in float64. scores, sizes: of this part."""
    split = tl.arange(0, SPLITS)
    lane = tl.arange(0, LANES)
    low = float("-inf")
    highest = tl.full((), low, tl.float32)
    scored = count <= MOST
    least = tl.full((), low, tl.float32)
    if scored:
        h_size = tl.sqrt(tl.sum(tl.load(sizes + split * 2), axis=0))
        c_size = tl.sqrt(tl.sum(tl.load(sizes + split * 2 + 1), axis=0))
        for k0 in range(0, count, LANES):
            score = _scores(scores, split, k0 + lane, count, MOST)
            highest = tl.maximum(highest, tl.max(tl.where(score == score, score, low), axis=0))
        least = highest - _DOUBT * (c_size * (h_size + 0.5 * c_size))
    best = tl.full((), low, tl.float64)
    best_row = first
    found = 0
    for k0 in range(0, count, LANES):
        possible = k0 + lane < count
        if scored:
            # Not the other way round: where something is NaN or infinite, all are possible.
            possible = possible & ~(_scores(scores, split, k0 + lane, count, MOST) < least)
        k = tl.min(tl.where(possible, lane, LANES), axis=0)
        while k < LANES:
            row = first + k0 + k
            possible = possible & (lane != k)
            k = tl.min(tl.where(possible, lane, LANES), axis=0)
            found += 1
            if (found == 1) & (k == LANES) & (count <= LANES) & scored:  # the only one
                best_row = row
            else:
                c = tl.load(rows + row.to(tl.int64) * D + d, mask=d < D, other=0.0)
                exact = tl.sum(h * c.to(tl.float64), axis=0) - tl.load(bias + row)
                best_row = tl.where(exact > best, row, best_row)  # strictly: the lowest index wins a tie
                best = tl.where(exact > best, exact, best)  # never NaN, which an infinite h makes of scores
    return best_row


@triton.jit
def _scores(scores, split, k, count, MOST: tl.constexpr):  # type: ignore[no-untyped-def]
    """The slices of some centroids' scores added up; those of more than there are are the lowest."""
    known = k < count
    slices = tl.load(scores + (split[:, None] * MOST + k[None, :]), mask=known[None, :], other=0.0)
    return tl.where(known, tl.sum(slices, axis=0), float("-inf"))


@triton.jit
def _distance(h, c, metric):  # type: ignore[no-untyped-def]
    """In float64; squared if Euclidean. Infinite, which is inside no limit, for the cosine of a zero vector."""
    distance = tl.full((), float("inf"), tl.float64)
    if metric == _COSINE:
        squares = tl.sum(h * h, axis=0) * tl.sum(c * c, axis=0)
        distance = tl.where(squares > 0, 1 - tl.sum(h * c, axis=0) / tl.sqrt(squares), float("inf"))
    else:
        distance = tl.sum((h - c) * (h - c), axis=0)
    return distance


@triton.jit
def _add(  # type: ignore[no-untyped-def]
    hidden, residual, delta, summed, entries, slots, limits, bias, rows, decided, lost, opens, scores, sizes,
    hidden_stride, residual_stride,
    HAS_RESIDUAL: tl.constexpr, EARLY: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr, MOST: tl.constexpr,
    BLOCK_D: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """BLOCK_D: at least D. EARLY: this was started before `_score` has ended."""
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
                    at = (token * _PARTS + part) * SPLITS
                    h = _stream(hidden, residual, _is_read(summed, HAS_RESIDUAL), d, D).to(tl.float64)
                    nearest = _nearest(
                        h, d, scores + at * MOST, sizes + at * 2, rows, bias, first, count, D, SPLITS, MOST, LANES
                    )
                    row = nearest + count
                    metric = tl.load(slots + slot * 3 + _LIMIT)
                    if metric != 0:
                        centroid = tl.load(rows + nearest.to(tl.int64) * D + d, mask=d < D, other=0.0)
                        distance = _distance(h, centroid.to(tl.float64), metric)
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
        *strides, **forms, BLOCK_D=triton.next_power_of_2(size), LANES=_LANES, num_warps=8, enable_fp_fusion=False,
        **({"launch_pdl": True} if early else {}),
    )  # fmt: skip
    return delta
