"""What decoder layers return, and where the residual stream is in it.

    hidden                 [T, D] or [1, T, D]      the stream
    (hidden, None)                                  the stream is hidden
    (hidden, residual)     both of one shape        the stream is hidden + residual, or hidden where nothing reads the
                                                    second: which of the two, `probe` measures at start

An addition to `hidden` is an addition to the stream in each of them. These functions are traced by torch.compile: they
decide by types and ranks alone. Anything else (several streams, a sum of prefixes) is no form, is left as it is, and
the probe refuses the model at start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["ReadsStream", "add", "parts"]

Parts = tuple[torch.Tensor, torch.Tensor | None]


def parts(out: Any) -> Parts | None:
    """The two parts of the stream, [T, D] each, in what a layer returned; None for what is no form."""
    if isinstance(out, torch.Tensor):
        hidden, residual = out, None
    elif type(out) is tuple and len(out) == 2 and isinstance(out[0], torch.Tensor):
        hidden, residual = out
    else:
        return None
    if hidden.dim() != 2 and not (hidden.dim() == 3 and hidden.shape[0] == 1):
        return None
    if residual is not None and not _alike(hidden, residual):
        return None
    size = hidden.shape[-1]
    return hidden.reshape(-1, size), None if residual is None else residual.reshape(-1, size)


def _alike(hidden: torch.Tensor, residual: Any) -> bool:
    return isinstance(residual, torch.Tensor) and residual.shape == hidden.shape and residual.dtype == hidden.dtype


def add(out: Any, delta: torch.Tensor) -> Any:
    """What a layer returned, with `delta` [T, D] added to its stream. Only for what has `parts`."""
    if isinstance(out, torch.Tensor):
        return out + delta.view_as(out)
    hidden, residual = out
    return hidden + delta.view_as(hidden), residual


class ReadsStream(nn.Module):
    """A part of a layer that reads its stream. summed: uint8 [1], 0 where the residual is no part of it; a buffer, so
    that a graph that is traced before this is known reads it as well."""

    summed: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("summed", torch.ones(1, dtype=torch.uint8), persistent=False)
