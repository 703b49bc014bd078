"""CLIPScore of words against pictures (docs/method.md §2), if a CLIP model is in a folder.

Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image Captioning" (EMNLP 2021): 2.5 · max(cos, 0),
and every text begins with "A photo depicts".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import CLIPModel, CLIPProcessor

from ..errors import ModelError
from ..images import open_image
from ..progress import tracked

__all__ = ["clip_score"]

_WEIGHT = 2.5
_PROMPT = "A photo depicts "


def clip_score(
    words: Sequence[Sequence[str]], pictures: Sequence[Sequence[Path]], folder: Path, *, progress: bool = False
) -> float | None:
    """The mean over concepts of the mean CLIPScore of a concept's words, as one text, with each of its pictures.

    words, pictures: for each concept; concepts without either are left out, and None is for when all are. folder: a
    CLIP model with its processor, in the Hub's layout. A score is from 0 to 2.5; a text is cut to what CLIP can read.

    Raises:
        ModelError: no CLIP model there.
    """
    try:
        loaded: Any = CLIPModel.from_pretrained(folder, local_files_only=True)
        processor: Any = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder}: cannot be loaded as a CLIP model with its processor; save both there") from error
    model = loaded.eval()
    both = [(list(said), list(shown)) for said, shown in zip(words, pictures, strict=True) if said and shown]
    scores = [
        _score(model, processor, said, shown)
        for said, shown in tracked("CLIPScore", both, len(both), unit="concept", show=progress)
    ]
    return fmean(scores) if scores else None


@torch.inference_mode()
def _score(model: Any, processor: Any, words: list[str], pictures: list[Path]) -> float:
    images = [open_image(path) for path in pictures]
    batch = processor(
        text=[_PROMPT + ", ".join(words)], images=images, padding=True, truncation=True, return_tensors="pt"
    )
    output = model(**batch)
    cosines = torch.nn.functional.cosine_similarity(output.text_embeds, output.image_embeds)
    return float(_WEIGHT * cosines.clamp(min=0).mean())
