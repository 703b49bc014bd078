"""LoRA beside steering. Profiles are made on the base model; what a LoRA request is steered with is the same vector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.engine.asking import Answer, Ask, caption, questions
from tests.engine.engine import Engine
from tests.engine.reference import Reference
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

RANK, WIDTH, LAYERS, BLOCK = 8, 192, 6, 32
TARGETS = ("q_proj", "v_proj")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA on the queries and values of the text decoder, large enough to be seen."""
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": list(TARGETS)}))
    torch.manual_seed(0)
    tensors = {}
    for layer in range(LAYERS):
        for target in TARGETS:
            name = f"base_model.model.model.language_model.layers.{layer}.self_attn.{target}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, WIDTH) * 0.05
            tensors[f"{name}.lora_B.weight"] = torch.randn(WIDTH, RANK) * 0.05
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def merged(model: Path, adapter: Path) -> Reference:
    """transformers with the adapter merged into its weights."""
    from safetensors.torch import load_file

    reference = Reference(model)
    tensors = load_file(adapter / "adapter_model.safetensors")
    with torch.no_grad():
        for number, block in enumerate(reference.reader.blocks):
            for target in TARGETS:
                name = f"base_model.model.model.language_model.layers.{number}.self_attn.{target}"
                weight = getattr(block.self_attn, target).weight
                weight += tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
    return reference


@pytest.fixture(scope="module")
def lora(model: Path, profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    # Two places for one adapter: vLLM's CPU kernels (lora/ops/torch_ops/lora_ops.py) take the index -1 of a request
    # without an adapter for the last place, and so give it the adapter there. Steered or not: it is none of ours.
    log = tmp_path_factory.mktemp("log") / "lora.log"
    with Engine(log, model, profiles, enable_lora=True, max_lora_rank=RANK, max_loras=2) as running:
        yield running


def test_the_same_layers_are_armed_beside_a_lora(lora: Engine) -> None:
    armed = lora.call("armed")
    assert [number for number, layer in enumerate(armed["layers"]) if "Armed" in layer] == armed["tables"] == [2, 5]


def test_lora_and_steering_share_a_batch_and_each_is_told_what_it_is_told_alone(lora: Engine, adapter: Path) -> None:
    asks = [
        replace(ask, steering=steering, lora=which, max_tokens=9, ignore_eos=True)
        for ask in (caption(1), *questions("number", 1), Ask("who is there?"))
        for steering in (None, "coarse-middle-answer", {"profile": "fine-last-all", "alpha": -2})
        for which in (None, str(adapter))
    ]
    alone = lora.ask_alone(asks)
    for batch in (slice(None), slice(None, None, -1)):
        lora.forget()
        answers = lora.ask([replace(ask, late=number // 4) for number, ask in enumerate(asks[batch])])
        assert [answer.tokens for answer in answers] == [answer.tokens for answer in alone[batch]]
    assert len({tuple(answer.tokens) for answer in alone}) > 3  # one for each prompt if neither showed


@pytest.mark.parametrize("name", ["coarse-last-answer", "coarse-middle-all", "fine-last-all", None])
def test_lora_and_steering_together_are_transformers_with_merged_weights_and_the_vector_added(
    lora: Engine, adapter: Path, merged: Reference, reference: Reference, registry: Registry, name: str | None
) -> None:
    ask = caption(3, steering=name, lora=str(adapter), full=True, max_tokens=4, ignore_eos=True)
    lora.forget()
    (answer,) = lora.ask([ask])
    profile = None if name is None else registry[name]
    np.testing.assert_allclose(answer.logprobs, merged.logprobs(ask, answer.tokens, profile, 1.0), rtol=0, atol=1e-4)
    without = reference.logprobs(ask, answer.tokens, profile, 1.0)
    assert (np.abs(np.array(answer.logprobs) - without).max(axis=1) > 1e-2).all()


def test_blocks_are_kept_apart_by_adapter_and_by_steering(lora: Engine, adapter: Path) -> None:
    ask = caption(7, max_tokens=1)

    def cached(*pairs: tuple[Any, bool]) -> list[int]:
        lora.forget()
        found: list[Answer] = []
        for steering, with_lora in pairs:
            found += lora.ask([replace(ask, steering=steering, lora=str(adapter) if with_lora else None)])
        return [answer.cached for answer in found]

    whole = 2 * BLOCK
    assert cached((None, False), (None, True), ("coarse-last-all", True), ("coarse-last-all", False)) == [
        0, 0, whole, whole,
    ]  # fmt: skip
    middle = "coarse-middle-all"
    assert cached((middle, False), (middle, True), (None, True), (middle, True), (middle, False)) == [
        0, 0, 0, whole, whole,
    ]  # fmt: skip
    assert cached((None, True), ("coarse-middle-answer", True)) == [0, whole]
