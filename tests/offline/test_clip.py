"""CLIPScore, with a tiny CLIP of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPVisionConfig,
)

from tests.offline.worlds import picture, tokenizer
from trimtab.offline.concepts.clip import clip_score
from trimtab.offline.errors import ModelError
from trimtab.offline.images import open_image


def save_clip(folder: Path) -> Path:
    words = tokenizer()
    words.model_max_length = 40
    # CLIP reads a text at its end token.
    words.backend_tokenizer.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=40, eos_token_id=1, bos_token_id=0, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(7)
    CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)).save_pretrained(
        folder
    )
    images: Any = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    CLIPProcessor(images, words).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{seed}.png" for seed in range(4)]
    for seed, path in enumerate(paths):
        picture(seed).save(path)
    return paths


def by_hand(clip: Path, text: str, path: Path) -> float:
    model: Any = CLIPModel.from_pretrained(clip).eval()
    processor: Any = CLIPProcessor.from_pretrained(clip)
    with torch.no_grad():
        out = model(**processor(text=[text], images=[open_image(path)], return_tensors="pt"))
    return max(0.0, 2.5 * float((out.text_embeds * out.image_embeds).sum()))


def test_it_is_the_mean_over_concepts_of_the_mean_over_pictures(clip: Path, pictures: list[Path]) -> None:
    words = [("yes", "red"), (), ("woman",)]
    score = clip_score(words, [pictures[:3], pictures, pictures[3:]], clip)
    first = [by_hand(clip, "A photo depicts yes, red", path) for path in pictures[:3]]
    second = by_hand(clip, "A photo depicts woman", pictures[3])
    assert score == pytest.approx((sum(first) / 3 + second) / 2, abs=1e-5)
    assert second == 0 < min(first)  # a negative cosine counts as none


def test_texts_longer_than_clip_can_read_are_cut(clip: Path, pictures: list[Path]) -> None:
    assert clip_score([["woman"] * 100], [pictures[:1]], clip) is not None


def test_there_is_no_score_without_words_or_without_pictures(clip: Path, pictures: list[Path]) -> None:
    assert clip_score([(), ("yes",)], [pictures, []], clip) is None


def test_a_folder_without_clip_is_refused(tmp_path: Path, llama: Path) -> None:
    for folder in (tmp_path, llama):
        with pytest.raises(ModelError, match="cannot be loaded as a CLIP model"):
            clip_score([("yes",)], [[]], folder)
