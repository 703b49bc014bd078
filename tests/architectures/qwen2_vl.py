"""A tiny random Qwen2-VL as save_pretrained writes one: weights, tokenizer, processors, chat template."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from tests.architectures.byte_tokens import byte_tokenizer

START, END = "<|im_start|>", "<|im_end|>"
IMAGE, VIDEO, VISION_START, VISION_END = "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"
# Writes what the template of the Hub's Qwen2-VL writes, without its system turn.
TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part['type'] == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- else -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""
PATCHING = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
PIXELS = {"min_pixels": 28 * 28, "max_pixels": 28 * 28 * 16}


def build(folder: Path, *, hidden: int = 64, layers: int = 4, seed: int = 0) -> Path:
    """Write the checkpoint and return its folder."""
    torch.manual_seed(seed)
    named = {"image_token": IMAGE, "video_token": VIDEO}
    tokenizer = byte_tokenizer([START, END, IMAGE, VIDEO, VISION_START, VISION_END], **named)
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 96,
            "num_hidden_layers": layers,
            "num_attention_heads": hidden // 32,
            "num_key_value_heads": 1,
            "max_position_embeddings": 1024,
            "initializer_range": 0.1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": 1,
            "eos_token_id": ids(END),
            "pad_token_id": 0,
            "tie_word_embeddings": False,
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": hidden,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "initializer_range": 0.2,
        },
        image_token_id=ids(IMAGE),
        video_token_id=ids(VIDEO),
        vision_start_token_id=ids(VISION_START),
        vision_end_token_id=ids(VISION_END),
        tie_word_embeddings=False,
    )
    Qwen2VLForConditionalGeneration(config).eval().save_pretrained(folder)
    Qwen2VLProcessor(
        Qwen2VLImageProcessor(**PATCHING, **PIXELS),
        tokenizer,
        Qwen2VLVideoProcessor(**PATCHING, **PIXELS),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder
