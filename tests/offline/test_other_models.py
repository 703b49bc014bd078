"""Architectures beside LLaVA and Llama, tiny and with random weights: blocks, pictures and batches are found alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessorPil,
    Idefics2Processor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from tests.offline.worlds import TEMPLATE, questions, tokenizer
from trimtab.offline.models import Reader


def save_gpt2(folder: Path) -> None:
    words = tokenizer()
    words.chat_template = TEMPLATE
    config = GPT2Config(vocab_size=len(words), n_embd=16, n_layer=3, n_head=2, n_positions=128, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    words.save_pretrained(folder)


def save_qwen2_vl(folder: Path) -> None:
    """Pictures of different sizes become different numbers of tokens, and positions are three-dimensional."""
    marks = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    words = tokenizer(*marks)
    image, video, start, end = (words.get_vocab()[mark] for mark in marks)
    template = TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    images: Any = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, min_pixels=28 * 28, max_pixels=84 * 84)
    Qwen2VLProcessor(images, words, Qwen2VLVideoProcessor(), chat_template=template).save_pretrained(folder)
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "eos_token_id": 1, "bos_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        vision_config={"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "mlp_ratio": 2},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )  # fmt: skip
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)


def save_idefics2(folder: Path) -> None:
    """A Mistral behind a perceiver."""
    words = tokenizer("<fake_token_around_image>", "<end_of_utterance>")
    images: Any = Idefics2ImageProcessorPil(size={"shortest_edge": 28, "longest_edge": 56}, do_image_splitting=False)
    Idefics2Processor(images, words, image_seq_len=4, chat_template=TEMPLATE).save_pretrained(folder)
    config = Idefics2Config(
        text_config={
            "model_type": "mistral", "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 32,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "eos_token_id": 1,
            "pad_token_id": 0, "bos_token_id": None,
        },
        vision_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 56, "patch_size": 14,
        },
        perceiver_config={
            "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2, "num_key_value_heads": 2,
            "resampler_head_dim": 8, "hidden_size": 32,
        },
        image_token_id=4,
    )  # fmt: skip
    Idefics2ForConditionalGeneration(config).save_pretrained(folder)


MODELS: dict[str, Any] = {"gpt2": save_gpt2, "qwen2-vl": save_qwen2_vl, "idefics2": save_idefics2}


@pytest.mark.parametrize("name", MODELS)
def test_any_decoder_is_read_alike(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    MODELS[name](tmp_path)
    reader = Reader(tmp_path)
    asked = questions(5, reader.processor is not None)
    top = reader.identity.num_layers - 1
    together = reader.read(asked, [0, top], 4)
    for question, reading in zip(asked, together, strict=True):
        (alone,) = reader.read([question], [0, top], 4)
        assert alone.answer == reading.answer
        assert reading.stream[top].shape == (len(reading.answer.tokens) + 1, reader.identity.hidden_size)
        for layer in (0, top):
            np.testing.assert_allclose(alone.stream[layer], reading.stream[layer], atol=1e-4)
