"""The tiny LLaVA: a CLIP vision tower, a two-layer projector and a Llama decoder, with tokenizer and processor.

A picture becomes 64 image tokens (8 × 8 patches of 14 px). There is no beginning-of-text token, so chats and raw
prompts agree; an answer starts right after `<assistant>`, without a space, and ends with `<eos>`.
"""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from examples.tinyworld.ask import all_words
from examples.tinyworld.layout import SIZE

PATCH = 14
IMAGE_TOKENS = (SIZE // PATCH) ** 2
CONTEXT = 1024
PAD, EOS, USER, ASSISTANT, IMAGE = SPECIAL = ("<pad>", "<eos>", "<user>", "<assistant>", "<image>")

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}{{ '<assistant>' }}{%- else -%}{{ '<user>' }}{%- endif -%}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}{%- if part['type'] != 'text' -%}{{ '<image>' }}{%- endif -%}{%- endfor -%}
{%- for part in message['content'] -%}{%- if part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'assistant' -%}{{ '<eos>' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<assistant>' }}{%- endif -%}
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every word of the world is one token, with and without a space before it.

    Build it once and load it from then on: training breaks ties as it likes, so a second one may number its tokens
    differently.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]|\s+"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([space + word for space in ("", " ") for word in all_words()], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=[USER, ASSISTANT, IMAGE],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    half = [0.5, 0.5, 0.5]
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, image_mean=half, image_std=half
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=1,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=128,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        initializer_range=0.04,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=token_id(tokenizer, IMAGE),
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def build_model(config: LlavaConfig, seed: int) -> LlavaForConditionalGeneration:
    """The model with fresh float32 weights; sets torch's seed."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    text = text_config(config)
    model.generation_config = GenerationConfig(
        do_sample=False, bos_token_id=None, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
    )
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The folder's tokenizer, built and saved there first if it has none."""
    if not (folder / "tokenizer.json").exists():
        build_tokenizer().save_pretrained(folder)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    return int(tokenizer.get_vocab()[token])


def text_config(config: LlavaConfig) -> LlamaConfig:
    """The decoder's configuration, which transformers types loosely."""
    assert isinstance(config.text_config, LlamaConfig)
    return config.text_config


def vision_config(config: LlavaConfig) -> CLIPVisionConfig:
    """The vision tower's configuration."""
    assert isinstance(config.vision_config, CLIPVisionConfig)
    return config.vision_config
