"""Text-only decoders are steered by the same code: tiny random models, held against transformers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.engine.asking import Ask
from tests.engine.conftest import BOTH_WAYS
from tests.engine.engine import Engine
from tests.engine.reference import Reference
from trimtab.vectors import ModelIdentity, Profile, Registry, SteeringVector, save_profile

pytestmark = pytest.mark.engine

LAYERS, HIDDEN, TOKENS = 4, 64, 4
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
ASKS = [Ask(text, max_tokens=TOKENS, ignore_eos=True, full=True) for text in ("who is there?", "two red balls " * 12)]
FAMILIES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_model_is_steered_as_transformers_with_the_vector_added(
    model: Path, tmp_path: Path, family: str
) -> None:
    folder = _random_model(tmp_path / "model", family, tokenizer_of=model)
    registry = _random_profiles(tmp_path / "profiles", folder)
    reference = Reference(folder)
    with Engine(tmp_path / "engine.log", folder, tmp_path / "profiles", max_model_len=256) as engine:
        assert [number for number, layer in enumerate(engine.call("armed")["layers"]) if "trimtab" in layer] == [1, 3]
        for name, profile in registry.items():
            alpha = -0.5
            answers = engine.ask([ask.steered({"profile": name, "alpha": alpha}) for ask in ASKS])
            for ask, answer in zip(ASKS, answers, strict=True):
                expected = reference.logprobs(ask, answer.tokens, profile, alpha)
                unsteered = reference.logprobs(ask, answer.tokens)
                np.testing.assert_allclose(answer.logprobs, expected, rtol=0, atol=1e-4)
                assert (np.abs(expected - unsteered).max(axis=1) > 1e-2).all()
        for ask, answer in zip(ASKS, engine.ask(ASKS), strict=True):
            np.testing.assert_allclose(answer.logprobs, reference.logprobs(ask, answer.tokens), rtol=0, atol=1e-4)


def _random_model(folder: Path, family: str, tokenizer_of: Path) -> Path:
    folder.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(tokenizer_of / name, folder / name)
    config, architecture = FAMILIES[family]
    torch.manual_seed(0)
    random = architecture(
        config(
            vocab_size=1024,
            hidden_size=HIDDEN,
            intermediate_size=96,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            initializer_range=0.1,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
            tie_word_embeddings=False,
        )
    )
    random.save_pretrained(folder)
    return folder


def _random_profiles(folder: Path, model: Path) -> Registry:
    identity = ModelIdentity.of(model)
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.normal(size=shape).astype(np.float32)

    vectors = [SteeringVector(layer, normal(HIDDEN)) for layer in (1, LAYERS - 1)]
    fine = {layer: (normal(5, HIDDEN), 2 * normal(5, HIDDEN)) for layer in (1, LAYERS - 1)}
    for profile in (
        Profile.coarse("coarse", vectors, model=identity, positions="all", alpha=BOTH_WAYS),
        Profile.fine("fine", fine, model=identity, positions="answer", alpha=BOTH_WAYS),
    ):
        save_profile(profile, folder / profile.name)
    return Registry.open(folder)
