"""The CUDA form of the op: two kernels, static in shape, free of synchronisation, fit for CUDA graphs.

`triton_score` scores the centroids of fine profiles, `triton_add` chooses rows and writes their sum. An unsteered token
costs its zeros. On devices that can, the second kernel starts while the first one ends.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import torch
import triton

from trimtab.vectors.asked import MOST_PROFILES

from ..errors import StartupError
from .triton_add import add
from .triton_score import score_few, score_many

__all__ = ["check_cache", "launch"]

# Chosen by bench/gpu_op.py on an H100. FEW: so many tokens are few, with SHARES programs for each, of TILE numbers.
_FEW, _SHARES, _TILE = 16, 16, 1 << 14
# Of `score_many`: centroids and columns at a time, slices of the width.
_BLOCK_K, _BLOCK_D, _MOST_SPLITS = 64, 32, 32
# Of `add`: centroids at a time, and numbers at a time in float64.
_LANES, _EXACT = 64, 1024
_MOST_SCORED = 256


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
    counts: torch.Tensor,
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
    # A table of R rows has no profile of more than R / 2 concepts. Scores of more than that are computed by `add`.
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
        score_few[(tokens, shares)](
            *given, scores, sizes, *strides, **forms, SHARES=shares, BLOCK_K=share, BLOCK_D=row,
            num_warps=8,
        )  # fmt: skip
    else:
        score_many[(triton.cdiv(tokens, block), splits)](
            *given, scores, sizes, tokens, _slice_size(size, splits), *strides, **forms, SPLITS=splits,
            BLOCK_T=block, BLOCK_K=_BLOCK_K, BLOCK_D=_BLOCK_D, num_warps=4,
        )  # fmt: skip
    add[(tokens,)](
        hidden, other, delta, summed, entries, slots, limits, bias, rows, decided, lost, counts, opens, scores, sizes,
        len(rows), *strides, **forms, SPLITS=splits, SIZES=shares, SHARE=share, BLOCK_D=row, EXACT_D=min(row, _EXACT),
        LANES=_LANES, num_warps=4, enable_fp_fusion=False,
        **({"launch_pdl": True} if early else {}),
    )  # fmt: skip
    return delta
