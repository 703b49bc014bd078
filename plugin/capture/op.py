"""The copy: rows[token_row[t]] = hidden[t] + residual[t] in float32, for every token t that some request wants.

As in `model.op`, the stream is hidden alone where there is no residual, or one that nothing reads.

A custom op that writes into a buffer of a fixed size, so that torch.compile and CUDA graphs see one opaque node whose
shape depends on nothing but its input's. The CPU form looks at wanted rows alone; the CUDA form writes the others into
the buffer's last row, which nobody reads, and so needs to know nothing on the host.
"""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["copy_rows"]

_LIBRARY = torch.library.Library("trimtab", "FRAGMENT")
_LIBRARY.define("copy_rows(Tensor hidden, Tensor? residual, Tensor summed, Tensor token_row, Tensor(a!) rows) -> ()")


def copy_rows(
    hidden: torch.Tensor,
    residual: torch.Tensor | None,
    summed: torch.Tensor,
    token_row: torch.Tensor,
    rows: torch.Tensor,
) -> None:
    """Copy the wanted rows of the stream into `rows`, in place.

    Args:
        hidden, residual: [T, D], the two parts of the stream after a decoder layer, any float dtype.
        summed: uint8 [1], 0 where `residual` is no part of the stream.
        token_row: int32 [≥ T], the row of `rows` that a token goes to; -1 is unwanted.
        rows: float32 [R + 1, D]; the last row is spare.
    """
    torch.ops.trimtab.copy_rows(hidden, residual, summed, token_row, rows)


@torch.library.impl(_LIBRARY, "copy_rows", "CPU")
def _copy_cpu(
    hidden: torch.Tensor,
    residual: torch.Tensor | None,
    summed: torch.Tensor,
    token_row: torch.Tensor,
    rows: torch.Tensor,
) -> None:
    row_of = token_row[: hidden.shape[0]].numpy()  # host memory here: numpy reads it without a torch call for each
    wanted = np.flatnonzero(row_of >= 0)
    if len(wanted):
        at, to = torch.from_numpy(wanted), torch.from_numpy(row_of[wanted].astype(np.int64))
        h = hidden.index_select(0, at).to(torch.float32)
        if residual is not None and summed.numpy()[0]:
            h = h.add_(residual.index_select(0, at))
        rows.index_copy_(0, to, h)


@torch.library.impl(_LIBRARY, "copy_rows", "CUDA")
def _copy_cuda(
    hidden: torch.Tensor,
    residual: torch.Tensor | None,
    summed: torch.Tensor,
    token_row: torch.Tensor,
    rows: torch.Tensor,
) -> None:
    to = token_row[: hidden.shape[0]].long()
    h = hidden.to(torch.float32)
    if residual is not None:
        h = h + torch.where(summed != 0, residual, 0)  # not a product, which would keep a NaN
    rows.index_copy_(0, torch.where(to < 0, len(rows) - 1, to), h)


@torch.library.register_fake("trimtab::copy_rows", lib=_LIBRARY)
def _copy_fake(
    hidden: torch.Tensor,
    residual: torch.Tensor | None,
    summed: torch.Tensor,
    token_row: torch.Tensor,
    rows: torch.Tensor,
) -> None:
    return None
