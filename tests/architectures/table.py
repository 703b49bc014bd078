"""Every architecture that `make models` compares, and how its checkpoint is served.

The names are those in a checkpoint's config.json. `build` writes a tiny one, in less than three seconds each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.architectures import pictures, text

__all__ = ["ROWS", "Implementation", "Row", "build"]

Implementation = Literal["native", "transformers"]

_VIDEO = ("LlavaOnevision", "SmolVLM", "Qwen2VL", "Qwen2_5_VL", "Qwen3VL", "InternVL", "Glm4v")
# vLLM's scan on a CPU does not return the states at the ends of blocks, which the prefix cache of these asks for.
_UNCACHED = ("FalconH1ForCausalLM",)
_BOTH_WAYS = ("Gemma3ForConditional", "PaliGemma")

_SAMPLE = frozenset(
    {
        "LlamaForCausalLM",  # (hidden, residual), which are summed
        "GPT2LMHeadModel",  # one tensor
        "StableLmForCausalLM",  # (hidden, residual) of which nothing reads the second
        "Gemma4ForCausalLM",  # (hidden, None)
        "Olmo2ForCausalLM",  # one tensor [1, T, D]: vLLM's Transformers backend
        "GraniteMoeHybridForCausalLM",  # state-space layers between those of attention
        "Idefics2ForConditionalGeneration",
        "Qwen2VLForConditionalGeneration",
    }
)
"""One for each form that a layer's output has, and the paper's other two models."""


@dataclass(frozen=True)
class Row:
    """An architecture.

    text: its processor takes a prompt without a picture. causal: the reference attends to pictures causally, as vLLM's
    attention on a CPU does for models that attend to them both ways. cached: vLLM on a CPU serves it with its prefix
    cache. sample: compared by `make test`, and compiled by `make models`.
    """

    name: str
    text: bool
    pictures: bool
    causal: bool
    cached: bool
    sample: bool

    @property
    def limits(self) -> dict[str, int]:
        """Most pictures and videos of a prompt; a video would take long to prepare for."""
        if not self.pictures:
            return {}
        return {"image": 1, **({"video": 0} if self.name.startswith(_VIDEO) else {})}


def _row(name: str) -> Row:
    return Row(
        name=name,
        text=name != "PaliGemmaForConditionalGeneration",
        pictures=name in pictures.PICTURES,
        causal=name.startswith(_BOTH_WAYS),
        cached=name not in _UNCACHED,
        sample=name in _SAMPLE,
    )


ROWS: dict[str, Row] = {name: _row(name) for name in (*pictures.PICTURES, *text.TEXT)}


def build(name: str, folder: Path) -> Path:
    """Write a tiny random checkpoint of an architecture: weights, tokenizer, processor, chat template."""
    (pictures if name in pictures.PICTURES else text).build(name, folder)
    return folder
