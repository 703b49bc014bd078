"""Tiny models with random weights and a tokenizer of their own, made on the fly: real architectures, no download."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from trimtab.offline.models.reader import Question
from trimtab.offline.states import LayerStates
from trimtab.vectors import ModelIdentity
from trimtab.vectors.states import StatesManifest, StatesRequest

LAYERS, HIDDEN = 4, 32
SPECIAL = ("<pad>", "<eos>", "<user>", "<assistant>", "<image>")
# "person" and "people" share their first token, as "1" and "3" do in LLaMA's vocabulary.
WORDS = (
    "person",
    "people",
    "snow",
    "woman",
    "three",
    "yes",
    "no",
    "man",
    "one",
    "two",
    "red",
    "blue",
    "what",
    "is",
    "it",
)
TEMPLATE = """\
{%- for message in messages -%}{{ '<user>' }}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{ '<image>' }}{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<assistant>' }}{%- endif -%}"""


def tokenizer(*more: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every word of WORDS is one token (or two with its space), but person and people share "pe".

    A merge counts before those that follow it, so longer words stand first in WORDS. more: further special tokens.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *more, *alphabet))}
    merges: list[tuple[str, str]] = []

    def merge(left: str, right: str) -> str:
        if (left, right) not in merges:
            merges.append((left, right))
            vocabulary.setdefault(left + right, len(vocabulary))
        return left + right

    for word in WORDS:
        parts = ("pe", word[2:]) if word.startswith("pe") else (word,)
        built = []
        for part in parts:
            text = part[0]
            for letter in part[1:]:
                text = merge(text, letter)
            built.append(text)
        merge("Ġ", built[0])
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=[*SPECIAL[2:], *more],
        clean_up_tokenization_spaces=False,
    )


def _text_config(vocabulary: int, heads: int = 2) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=heads,
        max_position_embeddings=256,
        initializer_range=0.2,  # large, so that different questions get different answers
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )


def _speak_words(head: torch.nn.Linear, words: PreTrainedTokenizerFast) -> None:
    """Let a random model say whole words or end, instead of stray bytes."""
    spoken = [number for token, number in words.get_vocab().items() if token.startswith("Ġ") and len(token) > 2]
    spoken += [words.get_vocab()[token] for token in ("ople", "<eos>")]
    silent = torch.ones(len(words), dtype=torch.bool)
    silent[spoken] = False
    with torch.no_grad():
        head.weight[silent] = 0
        head.weight[words.eos_token_id] *= 1.5  # so that answers end at different lengths


def save_llama(folder: Path, seed: int = 1, heads: int = 2) -> Path:
    """A text-only model. heads: with one, of size 32, vLLM's CPU attention takes it."""
    words = tokenizer()
    words.chat_template = TEMPLATE
    torch.manual_seed(seed)
    model = LlamaForCausalLM(_text_config(len(words), heads))
    _speak_words(model.lm_head, words)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def save_llava(folder: Path, seed: int = 1) -> Path:
    """CLIP tower, projector and Llama: 28 px pictures become four image tokens."""
    words = tokenizer()
    images: Any = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=_text_config(len(words)),
        image_token_index=4,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    _speak_words(model.lm_head, words)
    with torch.no_grad():  # loud pictures, so that the answers depend on them
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.mul_(20)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


QUESTIONS = (
    "yes",
    "what is it",
    "is it red is it blue is it a man",
    "no person is no two",
    "one",
    "red what",
    "blue snow",
    "people",
    "three two one",
    "woman is it",
)


def picture(seed: int) -> Image.Image:
    """Noise, another for each seed."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 52, 3), dtype=np.uint8))


def questions(count: int, pictured: bool) -> list[Question]:
    """Questions of different lengths, about different pictures or about none."""
    return [Question(QUESTIONS[i % len(QUESTIONS)], picture(i) if pictured else None) for i in range(count)]


def write_data(folder: Path, count: int, pictured: bool) -> Path:
    """A samples file of such questions, with its pictures beside it."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for i, question in enumerate(questions(count, pictured)):
        line = {"id": f"s{i}", "question": question.text, "answer": "yes", "weather": "fine"}
        line["type"] = "other" if i % 2 else "number"
        if question.image is not None:
            question.image.save(folder / "images" / f"{i}.png")
            line["image"] = f"images/{i}.png"
        lines.append(json.dumps(line) + "\n")
    path = folder / "data.jsonl"
    path.write_text("".join(lines), "utf-8")
    return path


def states_of(values: npt.ArrayLike, labels: Sequence[str], tokens: Sequence[int] | None = None) -> LayerStates:
    """States of layer 2 of a made-up model; each label predicts a token of its own unless `tokens` says otherwise."""
    array = np.asarray(values, np.float32)
    vocabulary = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    count = len(array)
    request = StatesRequest(
        model=ModelIdentity(
            architecture="Made", hidden_size=array.shape[1], num_layers=4, fingerprint="sampled-sha256:" + "0" * 64
        ),
        data="sha256:0",
        samples=count,
        rule="last-prompt",
        layers=(2,),
        dtype="float32",
        batch_size=1,
        shard_size=8,
        max_new_tokens=16,
    )
    return LayerStates(
        layer=2,
        values=array,
        labels=tuple(labels),
        tokens=np.array([vocabulary[label] for label in labels] if tokens is None else tokens, np.int64),
        sample_ids=tuple(f"s{i}" for i in range(count)),
        positions=np.zeros(count, np.int64),
        weights=np.ones(count),
        manifest=StatesManifest(request=request, versions={"torch": "0"}, labels=tuple(vocabulary)),
    )
