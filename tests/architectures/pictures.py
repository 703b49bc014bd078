"""Tiny checkpoints of models that take pictures, each with its own kind of vision tower, processor and marks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests.architectures import idefics2, qwen2_vl
from tests.architectures.byte_tokens import byte_tokenizer
from tests.architectures.parts import (
    HIDDEN,
    SIZES,
    VOCABULARY,
    add_noise,
    chat_template,
    names_of_the_hub,
    text_config,
    write,
)

__all__ = ["PICTURES", "build"]

_TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
_SQUARE = {"height": 56, "width": 56}
_PINPOINTS = [[56, 112], [112, 56], [112, 112]]
_QWEN_MARKS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
_QWEN_NAMES = ("image_token", "video_token", "vision_start_token", "vision_end_token")
_PATCHES = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
_TILES = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
_IDEFICS = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *_TILES)


def _numbers(words: Any, *marks: str) -> list[int]:
    return [int(number) for number in words.convert_tokens_to_ids(list(marks))]


def _llava(folder: Path) -> None:
    words, template = byte_tokenizer(["<image>"]), chat_template("<image>")
    (image,) = _numbers(words, "<image>")
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**_TOWER, num_hidden_layers=3),
        text_config=text_config("LlamaConfig", tie_word_embeddings=False),
        image_token_index=image,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=16,
    )
    pixels: Any = hf.CLIPImageProcessor(size={"shortest_edge": 56}, crop_size=_SQUARE)
    processor = hf.LlavaProcessor(pixels, words, 14, "default", num_additional_image_tokens=1, chat_template=template)
    write(folder, hf.LlavaForConditionalGeneration(config), processor, noise=0.03)
    names_of_the_hub(folder)


def _llava_next(folder: Path) -> None:
    words, template = byte_tokenizer(["<image>"]), chat_template("<image>")
    (image,) = _numbers(words, "<image>")
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**_TOWER, num_hidden_layers=3),
        text_config=text_config("LlamaConfig", tie_word_embeddings=False),
        image_token_index=image,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=_PINPOINTS,
        image_seq_length=16,
    )
    pixels: Any = hf.LlavaNextImageProcessor(
        size={"shortest_edge": 56}, crop_size=_SQUARE, image_grid_pinpoints=_PINPOINTS
    )
    processor = hf.LlavaNextProcessor(
        pixels, words, 14, "default", num_additional_image_tokens=1, chat_template=template
    )
    write(folder, hf.LlavaNextForConditionalGeneration(config), processor, noise=0.03)
    names_of_the_hub(folder)


def _llava_onevision(folder: Path) -> None:
    words = byte_tokenizer(["<image>", "<video>"])
    image, video = _numbers(words, "<image>", "<video>")
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**_TOWER, num_hidden_layers=3),
        text_config=text_config("Qwen2Config", tie_word_embeddings=False),
        image_token_index=image,
        video_token_index=video,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=_PINPOINTS,
        vision_aspect_ratio="anyres_max_9",
    )
    processor = hf.LlavaOnevisionProcessor(
        image_processor=hf.LlavaOnevisionImageProcessor(size=_SQUARE, image_grid_pinpoints=_PINPOINTS),
        tokenizer=words,
        video_processor=hf.LlavaOnevisionVideoProcessor(size=_SQUARE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=chat_template("<image>"),
    )
    write(folder, hf.LlavaOnevisionForConditionalGeneration(config), processor, noise=0.03)
    names_of_the_hub(folder)


def _qwen(kind: str, folder: Path, vision: dict[str, Any], patch: int, videos: Any, **text: Any) -> None:
    words = byte_tokenizer(_QWEN_MARKS, **dict(zip(_QWEN_NAMES, _QWEN_MARKS, strict=True)))
    image, video, start, end = _numbers(words, *_QWEN_MARKS)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6], **text.pop("rope", {})}
    config = getattr(hf, f"{kind}Config")(
        text_config={
            **text_config("Qwen2Config").to_dict(),
            "tie_word_embeddings": False,
            "rope_parameters": rope,
            **text,
        },
        vision_config={
            "patch_size": patch,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_heads": 2,
            **vision,
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    side = 2 * patch
    pixels = hf.Qwen2VLImageProcessor(
        min_pixels=side**2, max_pixels=(4 * side) ** 2, patch_size=patch, merge_size=2, temporal_patch_size=2
    )
    processor = getattr(hf, f"{kind}Processor")(
        image_processor=pixels,
        tokenizer=words,
        video_processor=videos,
        chat_template=chat_template("<|vision_start|><|image_pad|><|vision_end|>"),
    )
    write(folder, getattr(hf, f"{kind}ForConditionalGeneration")(config), processor, noise=0.03)


def _qwen2_5_vl(folder: Path) -> None:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": HIDDEN,
        "intermediate_size": 64,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    videos = hf.Qwen2VLVideoProcessor(
        min_pixels=28**2, max_pixels=112**2, patch_size=14, merge_size=2, temporal_patch_size=2
    )
    _qwen("Qwen2_5_VL", folder, vision, 14, videos)


def _qwen3_vl(folder: Path) -> None:
    """The first three layers get features of the picture after them, outside of the layer."""
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "out_hidden_size": HIDDEN,
        "intermediate_size": 64,
        "deepstack_visual_indexes": [0, 1, 2],
        "num_position_embeddings": 64,
    }
    videos = hf.Qwen3VLVideoProcessor(
        size={"shortest_edge": 32**2, "longest_edge": 2 * 128**2}, patch_size=16, merge_size=2, temporal_patch_size=2
    )
    _qwen("Qwen3VL", folder, vision, 16, videos, head_dim=32, rope={"mrope_interleaved": True})


def _idefics3(folder: Path) -> None:
    words = byte_tokenizer(_IDEFICS)
    (image,) = _numbers(words, "<image>")
    config = hf.Idefics3Config(
        vision_config={**_TOWER, "num_hidden_layers": 2},
        text_config=text_config("LlamaConfig", tie_word_embeddings=False),
        image_token_id=image,
        scale_factor=2,
        tie_word_embeddings=False,
    )
    pixels: Any = hf.Idefics3ImageProcessor(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    processor = hf.Idefics3Processor(pixels, words, image_seq_len=4, chat_template=chat_template("<image>"))
    write(folder, hf.Idefics3ForConditionalGeneration(config), processor, noise=0.03)


def _smolvlm(folder: Path) -> None:
    names = ("image_token", "fake_image_token", "end_of_utterance_token", "global_image_token")
    words = byte_tokenizer(_IDEFICS, **dict(zip(names, _IDEFICS, strict=False)))
    (image,) = _numbers(words, "<image>")
    config = hf.SmolVLMConfig(
        vision_config={**_TOWER, "num_hidden_layers": 2},
        text_config=text_config("LlamaConfig", tie_word_embeddings=False),
        image_token_id=image,
        scale_factor=2,
        tie_word_embeddings=False,
    )
    edges: dict[str, Any] = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}
    processor = hf.SmolVLMProcessor(
        image_processor=hf.SmolVLMImageProcessor(**edges),
        tokenizer=words,
        video_processor=hf.SmolVLMVideoProcessor(**{**edges, "size": {"longest_edge": 56}}),
        image_seq_len=4,
        chat_template=chat_template("<image>"),
    )
    write(folder, hf.SmolVLMForConditionalGeneration(config), processor, noise=0.03)


def _internvl(folder: Path) -> None:
    marks = ("<img>", "</img>", "<IMG_CONTEXT>", "<video>")
    names = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    words = byte_tokenizer(marks, **dict(zip(names, marks, strict=True)))
    (image,) = _numbers(words, "<IMG_CONTEXT>")
    vision = {**_TOWER, "image_size": [56, 56], "patch_size": [14, 14], "num_hidden_layers": 2}
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**vision),
        text_config=text_config("Qwen2Config", tie_word_embeddings=False),
        image_token_id=image,
        downsample_ratio=0.5,
        image_seq_length=4,
    )
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=_SQUARE, min_patches=1, max_patches=4, crop_to_patches=True),
        tokenizer=words,
        video_processor=hf.InternVLVideoProcessor(size=_SQUARE),
        image_seq_length=4,
        chat_template=chat_template("<IMG_CONTEXT>"),
    )
    write(folder, hf.InternVLForConditionalGeneration(config), processor, noise=0.03)


def _siglip(**settings: Any) -> hf.SiglipVisionConfig:
    """settings: of the tower; some of them the class does not declare, and reads."""
    return hf.SiglipVisionConfig(**{**_TOWER, **settings})


def _gemma3(folder: Path) -> None:
    marks = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
    lines = ("\n\n\n\n", "\n\n\n", "\n\n", "\n")  # vLLM looks each of these up in the vocabulary
    names = dict(zip(("boi_token", "eoi_token", "image_token"), marks, strict=True))
    words = byte_tokenizer([*marks, *lines], **names)
    start, end, image = _numbers(words, *marks)
    config = hf.Gemma3Config(
        vision_config=_siglip(num_hidden_layers=2, vision_use_head=False),
        text_config=text_config(
            "Gemma3TextConfig", tie_word_embeddings=True, head_dim=32, query_pre_attn_scalar=32, sliding_window=64
        ),
        mm_tokens_per_image=4,
        image_token_index=image,
        boi_token_index=start,
        eoi_token_index=end,
    )
    pixels: Any = hf.Gemma3ImageProcessor(size=_SQUARE)
    processor = hf.Gemma3Processor(pixels, words, image_seq_length=4, chat_template=chat_template("<start_of_image>"))
    write(folder, hf.Gemma3ForConditionalGeneration(config), processor, noise=0.03)
    names_of_the_hub(folder)


def _paligemma(folder: Path) -> None:
    """Its processor puts the picture before the text by itself."""
    words = byte_tokenizer(["<image>", "\n"])
    (image,) = _numbers(words, "<image>")
    vision = _siglip(num_hidden_layers=2, vision_use_head=False, projection_dim=HIDDEN)
    vision.num_image_tokens = 16
    text = text_config("GemmaConfig", tie_word_embeddings=True, head_dim=32, vocab_size=VOCABULARY + 1152)
    text.num_image_tokens = 16
    config = hf.PaliGemmaConfig(
        vision_config=vision, text_config=text, image_token_index=image, projection_dim=HIDDEN, hidden_size=HIDDEN
    )
    pixels: Any = hf.SiglipImageProcessor(size=_SQUARE)
    pixels.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(pixels, words, chat_template=chat_template())
    write(folder, hf.PaliGemmaForConditionalGeneration(config), processor, noise=0.03)
    names_of_the_hub(folder)


def _mistral3(folder: Path) -> None:
    words = byte_tokenizer(["[IMG]", "[IMG_BREAK]", "[IMG_END]"])
    (image,) = _numbers(words, "[IMG]")
    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**{**_TOWER, "image_size": 112}, num_hidden_layers=2),
        text_config=text_config("MistralConfig", tie_word_embeddings=False, sliding_window=None),
        image_token_index=image,
        spatial_merge_size=2,
        vision_feature_layer=-1,
    )
    pixels: Any = hf.PixtralImageProcessor(size={"longest_edge": 112}, patch_size={"height": 14, "width": 14})
    processor = hf.PixtralProcessor(
        pixels, words, patch_size=14, spatial_merge_size=2, chat_template=chat_template("[IMG]")
    )
    write(folder, hf.Mistral3ForConditionalGeneration(config), processor, noise=0.03)


def _glm4v(folder: Path) -> None:
    marks = (
        "<|image|>",
        "<|video|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    )
    words = byte_tokenizer(marks, image_token=marks[0], video_token=marks[1])
    image, video, image_start, image_end, video_start, video_end = _numbers(words, *marks)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    config = hf.Glm4vConfig(
        # attention_bias as the Hub's checkpoint has it: vLLM takes biases for granted
        text_config={**SIZES, "head_dim": 32, "attention_bias": True, "rope_parameters": rope},
        vision_config={
            "depth": 2, "hidden_size": 32, "out_hidden_size": HIDDEN, "intermediate_size": 64, "num_heads": 2,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "image_size": 112,
        },
        image_token_id=image,
        video_token_id=video,
        image_start_token_id=image_start,
        image_end_token_id=image_end,
        video_start_token_id=video_start,
        video_end_token_id=video_end,
        tie_word_embeddings=False,
    )  # fmt: skip
    edges: dict[str, Any] = {"size": {"shortest_edge": 28**2, "longest_edge": 2 * 112**2}}
    patches: dict[str, Any] = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    processor = hf.Glm4vProcessor(
        image_processor=hf.Glm4vImageProcessor(**edges, **patches),
        tokenizer=words,
        video_processor=hf.Glm4vVideoProcessor(**edges, **patches),
        chat_template=chat_template("<|begin_of_image|><|image|><|end_of_image|>"),
    )
    write(folder, hf.Glm4vForConditionalGeneration(config), processor, noise=0.03)


def _aria(folder: Path) -> None:
    words = byte_tokenizer(["<image>"], image_token="<image>")
    (image,) = _numbers(words, "<image>")
    text = text_config(
        "AriaTextConfig",
        tie_word_embeddings=False,
        intermediate_size=32,
        moe_num_experts=4,
        moe_topk=2,
        moe_num_shared_experts=1,
    )
    config = hf.AriaConfig(
        vision_config={**_TOWER, "model_type": "idefics3_vision", "num_hidden_layers": 2, "image_size": 980},
        text_config=text,
        image_token_index=image,
        projector_patch_to_query_dict={1225: 8, 4900: 16},
    )
    processor = hf.AriaProcessor(
        image_processor=hf.AriaImageProcessor(max_image_size=490, min_image_size=336),
        tokenizer=words,
        size_conversion={490: 8, 980: 16},
        chat_template=chat_template("<image>"),
    )
    write(folder, hf.AriaForConditionalGeneration(config), processor, noise=0.03)


def _idefics2(folder: Path) -> None:
    idefics2.build(folder)
    add_noise(folder)


def _qwen2_vl(folder: Path) -> None:
    qwen2_vl.build(folder)
    add_noise(folder)


PICTURES: dict[str, Callable[[Path], Any]] = {
    "LlavaForConditionalGeneration": _llava,
    "LlavaNextForConditionalGeneration": _llava_next,
    "LlavaOnevisionForConditionalGeneration": _llava_onevision,
    "Idefics2ForConditionalGeneration": _idefics2,
    "Idefics3ForConditionalGeneration": _idefics3,
    "SmolVLMForConditionalGeneration": _smolvlm,
    "Qwen2VLForConditionalGeneration": _qwen2_vl,
    "Qwen2_5_VLForConditionalGeneration": _qwen2_5_vl,
    "Qwen3VLForConditionalGeneration": _qwen3_vl,
    "InternVLForConditionalGeneration": _internvl,
    "Gemma3ForConditionalGeneration": _gemma3,
    "PaliGemmaForConditionalGeneration": _paligemma,
    "Mistral3ForConditionalGeneration": _mistral3,
    "Glm4vForConditionalGeneration": _glm4v,
    "AriaForConditionalGeneration": _aria,
}
"""Architecture of the checkpoint → what writes one."""


def build(architecture: str, folder: Path) -> None:
    """Write a tiny checkpoint of a model that takes pictures."""
    torch.manual_seed(0)
    PICTURES[architecture](folder)
