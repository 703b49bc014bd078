"""What tiny checkpoints have in common: sizes, a chat template, and how a folder of them is written.

Nothing is downloaded, and nothing is left to chance: the same call writes the same folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

__all__ = [
    "HIDDEN",
    "LAYERS",
    "SIZES",
    "VOCABULARY",
    "add_noise",
    "chat_template",
    "names_of_the_hub",
    "text_config",
    "write",
]

HIDDEN, LAYERS, VOCABULARY = 64, 4, 320

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,  # of 32: the CPU's attention has no kernel for smaller heads
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,  # large, so that what is added shows in the answer
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
"""Of a text decoder, under the names that most configurations use."""

_TOWERS = ("embeddings", "encoder", "post_layernorm", "pre_layrnorm", "head")


def text_config(kind: str, **settings: Any) -> Any:
    """A text decoder's configuration of these sizes. kind: name of its class in transformers."""
    return getattr(transformers, kind)(**{**SIZES, **settings})


def chat_template(picture: str = "") -> str:
    """Content as a string or as parts; `picture` is what stands for a picture."""
    return (
        "{%- for message in messages -%}{{ 'ask: ' }}{%- if message['content'] is string -%}{{ message['content'] }}"
        "{%- else -%}{%- for part in message['content'] -%}{%- if part['type'] == 'image' -%}{{ '"
        + picture
        + "' }}{%- else -%}{{ ' ' + part['text'] }}{%- endif -%}{%- endfor -%}{%- endif -%}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ ' answer:' }}{%- endif -%}"
    )


def write(folder: Path, model: Any, reading: Any, *, noise: float = 0.05) -> Path:
    """Save a model in float32 beside its processor or tokenizer.

    noise: standard deviation of what is added to every parameter, so that no norm is 1 and no bias 0: a layer taken
    for another, or a weight left out, then shows.
    """
    generator = torch.Generator().manual_seed(1)
    model = model.float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * noise)
    model.save_pretrained(folder)
    reading.save_pretrained(folder)
    return folder


def add_noise(folder: Path, noise: float = 0.03) -> None:
    """The same to a checkpoint that is already written."""
    path, generator = folder / "model.safetensors", torch.Generator().manual_seed(1)
    tensors = load_file(path)
    for name in sorted(tensors):
        tensors[name] += torch.randn(tensors[name].shape, generator=generator) * noise
    save_file(tensors, path, metadata={"format": "pt"})


def names_of_the_hub(folder: Path) -> None:
    """Give a CLIP or SigLIP tower the names that it has on the Hub; vLLM knows no others.

    transformers 5 saves `vision_tower.embeddings…`, the Hub has `vision_tower.vision_model.embeddings…`, and
    transformers reads both.
    """
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for part in _TOWERS:
        short, long = f"vision_tower.{part}.", f"vision_tower.vision_model.{part}."
        tensors = {name.replace(short, long): tensor for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})
