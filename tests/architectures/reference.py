"""transformers with hooks, for every architecture: `tests.engine.reference`, and token types where a model has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tests.engine import reference
from tests.engine.asking import Ask

__all__ = ["Reference"]

_TYPES = ("token_type_ids", "mm_token_type_ids")


class Reference(reference.Reference):
    """causal: attend to pictures causally, whatever the model does."""

    def __init__(self, folder: Path, *, causal: bool = False) -> None:
        super().__init__(folder)
        self._causal = causal
        if causal:  # transformers' default attention goes both ways for PaliGemma, whatever the types say
            self.reader.model.set_attn_implementation("eager")

    def _inputs(self, ask: Ask) -> dict[str, torch.Tensor]:
        inputs = super()._inputs(ask)
        inputs.pop("labels", None)  # PaliGemma's processor makes them for a training
        if self._causal:
            inputs.pop("token_type_ids", None)
        return inputs

    def _extended(self, ask: Ask, tokens: Sequence[int]) -> tuple[dict[str, torch.Tensor], int]:
        inputs, length = super()._extended(ask, tokens)
        for name in _TYPES:
            if name in inputs:  # what is generated is text, type 0
                inputs[name] = torch.nn.functional.pad(inputs[name], (0, len(tokens) - 1))
        return inputs, length
