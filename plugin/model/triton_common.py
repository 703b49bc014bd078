"""What the kernels of the CUDA form share: how entries and slots are laid out, and how the stream is read."""

from __future__ import annotations

import triton
import triton.language as tl

from trimtab.vectors.asked import MOST_PROFILES

from ..steps.batch import ALPHA, DECISION, SLOT
from .fields import COSINE, COUNT, FIRST, LIMIT, NOT_HERE

# A kernel may read of a module only what is marked as constant.
SLOT_AT, ALPHA_AT, DECISION_AT = tl.constexpr(SLOT), tl.constexpr(ALPHA), tl.constexpr(DECISION)
FIRST_AT, COUNT_AT, LIMIT_AT = tl.constexpr(FIRST), tl.constexpr(COUNT), tl.constexpr(LIMIT)
BY_COSINE, NO_ROW = tl.constexpr(COSINE), tl.constexpr(NOT_HERE)
PARTS = tl.constexpr(MOST_PROFILES)


@triton.jit
def is_read(summed, HAS_RESIDUAL: tl.constexpr):  # type: ignore[no-untyped-def]
    """Not 0 where the residual is a part of the stream; else it is not loaded, whatever is in it."""
    read = 0
    if HAS_RESIDUAL:
        read = tl.load(summed).to(tl.int32)
    return read


@triton.jit
def stream(hidden, residual, read, d, D: tl.constexpr):  # type: ignore[no-untyped-def]
    """In float32, at the columns d."""
    h = tl.load(hidden + d, mask=d < D, other=0.0).to(tl.float32)
    return h + tl.load(residual + d, mask=tl.where(d < D, read, 0) != 0, other=0.0).to(tl.float32)
