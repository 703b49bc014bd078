"""A tiny random Idefics2 as save_pretrained writes one: weights, tokenizer, processor, chat template."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessor,
    Idefics2Processor,
    MistralConfig,
)

from tests.architectures.byte_tokens import byte_tokenizer

IMAGE, AROUND, END = "<image>", "<fake_token_around_image>", "<end_of_utterance>"
# Writes what the template of the Hub's Idefics2 writes: no blank and no line between a picture and the text after it.
TEMPLATE = """\
{%- for message in messages -%}
{{ message['role'] | capitalize }}
{%- if message['content'] is string -%}{{ ': ' + message['content'] }}
{%- else -%}
{{- ':' if message['content'][0]['type'] == 'image' else ': ' -}}
{%- for part in message['content'] -%}
{{- part['text'] if part['type'] == 'text' else '<image>' -}}
{%- endfor -%}
{%- endif -%}
{{- '<end_of_utterance>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}
"""
LATENTS, PATCH = 8, 4


def build(folder: Path, *, hidden: int = 64, layers: int = 4, seed: int = 0, splitting: bool = False) -> Path:
    """Write the checkpoint and return its folder.

    The tower has 27 patches a side, at which vLLM's own position embeddings differ from transformers'. splitting: each
    picture is read as four quarters and the whole.
    """
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer([IMAGE, AROUND, END])
    text = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        sliding_window=None,
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    config = Idefics2Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 27 * PATCH,
            "patch_size": PATCH,
            "initializer_range": 0.2,
        },
        perceiver_config={
            "resampler_n_latents": LATENTS,
            "resampler_depth": 2,
            "resampler_n_heads": 4,
            "resampler_head_dim": 16,
            "num_key_value_heads": 2,
            "hidden_size": hidden,
            "initializer_range": 0.2,
        },
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        tie_word_embeddings=False,
    )
    model = Idefics2ForConditionalGeneration(config).eval()
    with torch.no_grad():  # which are made alike: every picture would look the same through equal latents
        torch.nn.init.normal_(model.model.connector.perceiver_resampler.latents)
    model.save_pretrained(folder)
    pictures = Idefics2ImageProcessor(
        size={"shortest_edge": 10 * PATCH, "longest_edge": 27 * PATCH}, do_image_splitting=splitting
    )
    Idefics2Processor(pictures, tokenizer, image_seq_len=LATENTS, chat_template=TEMPLATE).save_pretrained(folder)
    return folder
