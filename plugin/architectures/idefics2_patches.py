"""Which patches of a tile are real, and where they lie, as transformers' Idefics2 tells it.

vLLM's tower computes positions otherwise: at the 70 patches a side of the published model, 4 of 70 heights get other
rows in float32 and 33 of 70 in bfloat16.
"""

from __future__ import annotations

import torch

__all__ = ["position_ids", "whole_patches"]


def whole_patches(mask: torch.Tensor, size: int) -> torch.Tensor:
    """Which patches hold no padding, bool [B, H // size, W // size], of a mask of pixels, bool [B, H, W]."""
    return mask.unfold(1, size, size).unfold(2, size, size).all(-1).all(-1)


def position_ids(patches: torch.Tensor, side: int, dtype: torch.dtype) -> torch.Tensor:
    """Rows of the tower's position embeddings, int64 [B, H * W], for real patches, bool [B, H, W]; 0 for others.

    A picture's patches are spread over the square of side * side embeddings that the tower was trained with. side:
    patches on a side of that square. dtype: of the pixels. transformers rounds to it before it sorts into buckets.
    """
    boundaries = torch.arange(1 / side, 1.0, 1 / side, device=patches.device)

    def buckets(real: torch.Tensor, most: int) -> torch.Tensor:
        steps = torch.arange(most, device=patches.device, dtype=torch.float32)[None] * (1.0 / real)[:, None]
        return torch.bucketize(steps.clamp(max=1.0 - 1e-6).to(dtype), boundaries, right=True)

    rows = buckets(patches[:, :, 0].sum(1), patches.shape[1])
    columns = buckets(patches[:, 0, :].sum(1), patches.shape[2])
    return (rows[:, :, None] * side + columns[:, None, :]).flatten(1).where(patches.flatten(1), 0)
