"""Idefics2 and Qwen2-VL beside what vLLM can do with a model: adapters, two processes, quantised weights, states."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.architectures import idefics2, qwen2_vl
from tests.engine.engine import SMALL, V2, Engine
from tests.engine.pictured import Pictures, Shown, differences, random_profiles, show
from trimtab.offline.cli.app import app
from trimtab.offline.states import load_states
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

HIDDEN, LAYERS, RANK = 64, 4, 8
BUILDERS: Mapping[str, Any] = {"idefics2": idefics2.build, "qwen2_vl": qwen2_vl.build}
DECODERS = {"idefics2": "model.text_model", "qwen2_vl": "model.language_model"}
STORED = {"idefics2": "model.text_model", "qwen2_vl": "model"}  # as a checkpoint names it
TARGETS = {"q_proj": 64, "v_proj": 32}
WIDE, TALL = (90, 70, 0), (60, 130, 1)
PLAIN = [Shown(("who is there?",)), Shown((WIDE, "What is it?")), Shown((TALL, WIDE, "differ?"))]
STEERED = [{"profile": name, "alpha": 1.0} for name in ("coarse-0", "fine-1", "fine-3")]
ASKS = [ask.steered(steering) for steering in (None, *STEERED) for ask in PLAIN]


@pytest.fixture(params=list(BUILDERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(name: str, tmp_path: Path) -> Path:
    built: Path = BUILDERS[name](tmp_path / "model", hidden=HIDDEN, layers=LAYERS)
    return built


@pytest.fixture
def made(folder: Path, tmp_path: Path) -> Path:
    random_profiles(tmp_path / "profiles", folder)
    return tmp_path / "profiles"


@pytest.mark.slow
def test_an_adapter_and_steering_share_a_batch(name: str, folder: Path, made: Path, tmp_path: Path) -> None:
    tensors = _adapter(tmp_path / "adapter", name)
    adapted, plain = Pictures(folder), Pictures(folder)
    with torch.no_grad():
        for layer, block in enumerate(adapted.reader.blocks):
            for target in TARGETS:
                a, b = (tensors[f"{_module(name, layer, target)}.lora_{part}.weight"] for part in "AB")
                getattr(block.self_attn, target).weight.add_(b @ a)
    asks = [replace(ask, lora=lora) for ask in ASKS for lora in (None, str(tmp_path / "adapter"))]
    with Engine(tmp_path / "log", folder, made, enable_lora=True, max_lora_rank=RANK, max_loras=2) as engine:
        answers = show(engine, asks)
    registry = Registry.open(made)
    assert max(differences(plain, registry, asks[::2], answers[::2])) < 1e-4
    assert max(differences(adapted, registry, asks[1::2], answers[1::2])) < 1e-4
    assert max(differences(plain, registry, asks[1::2], answers[1::2])) > 1e-2


@pytest.mark.slow
def test_two_tensor_parallel_processes_answer_as_transformers(folder: Path, made: Path, tmp_path: Path) -> None:
    env = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    two: dict[str, Any] = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    with Engine(tmp_path / "log", folder, made, env=env, **two) as engine:
        answers = show(engine, ASKS)
    assert max(differences(Pictures(folder), Registry.open(made), ASKS, answers)) < 1e-4


@pytest.mark.slow
def test_model_runner_v2_answers_as_transformers(folder: Path, made: Path, tmp_path: Path) -> None:
    asks = [replace(ask, max_tokens=2) for ask in ASKS[1:]]
    with Engine(tmp_path / "log", folder, made, env=V2) as engine:
        answers = show(engine, asks)
    assert max(differences(Pictures(folder), Registry.open(made), asks, answers)) < 1e-4


@pytest.mark.slow
def test_a_quantised_model_is_steered_as_it_computes(name: str, folder: Path, tmp_path: Path) -> None:
    """Its own rounding of activations is all that tells it from transformers with the same weights and roundings."""
    reference = Pictures(folder)
    quantised = _quantise(name, folder, tmp_path / "int8", reference)
    registry = random_profiles(tmp_path / "profiles", quantised)
    with Engine(tmp_path / "log", quantised, tmp_path / "profiles") as engine:
        answers = show(engine, ASKS)
    found = differences(reference, registry, ASKS, answers)
    assert max(found) < 5e-2, found
    for ask, answer in zip(ASKS[len(PLAIN) :], answers[len(PLAIN) :], strict=True):
        assert np.abs(np.array(answer.logprobs) - reference.logprobs(ask, answer.tokens)).max() > 0.1


@pytest.mark.slow
def test_both_engines_write_the_same_states(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in SMALL.items():
        monkeypatch.setenv(variable, value)
    lines = []
    for number, shape in enumerate([None, WIDE, TALL, (40, 90, 5)]):
        lines.append({"id": f"s{number}", "question": f"what is it, {number}?"})
        if shape is not None:
            Shown((shape,)).media(3)[0].save(tmp_path / f"{number}.png")
            lines[-1]["image"] = f"{number}.png"
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = '{"enforce_eager": true, "max_model_len": 512, "block_size": 32}'
    for engine, more in (("transformers", []), ("vllm", ["--engine-args", arguments])):
        command = ["represent", str(folder), str(data), "-l", "0", "-l", "3", "--rule", "last-prompt"]
        asked = [*command, "--dtype", "float32", "--out", str(tmp_path / engine), "--engine", engine, *more]
        written = CliRunner().invoke(app, asked)
        assert written.exit_code == 0, written.output
    for layer in (0, 3):
        ours, theirs = (load_states(tmp_path / engine, layer) for engine in ("vllm", "transformers"))
        assert ours.sample_ids == theirs.sample_ids == ("s0", "s1", "s2", "s3")
        scale = np.linalg.norm(ours.values, axis=1) * np.linalg.norm(theirs.values, axis=1)
        assert ((ours.values * theirs.values).sum(axis=1) / scale >= 0.9999).all()
        np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-4, atol=1e-4)


def _module(name: str, layer: int, target: str) -> str:
    return f"base_model.model.{DECODERS[name]}.layers.{layer}.self_attn.{target}"


def _adapter(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """A random LoRA on the queries and values of the text decoder, large enough to be seen."""
    folder.mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": list(TARGETS)}))
    torch.manual_seed(0)
    tensors = {}
    for layer in range(LAYERS):
        for target, wide in TARGETS.items():
            tensors[f"{_module(name, layer, target)}.lora_A.weight"] = torch.randn(RANK, HIDDEN) * 0.1
            tensors[f"{_module(name, layer, target)}.lora_B.weight"] = torch.randn(wide, RANK) * 0.1
    save_file(tensors, folder / "adapter_model.safetensors")
    return tensors


def _quantise(name: str, folder: Path, out: Path, reference: Pictures) -> Path:
    """The decoder in int8, as compressed-tensors keeps it: a scale per row of its weights, and per token at run time.

    `reference` then computes with the same roundings.
    """
    shutil.copytree(folder, out)
    tensors = load_file(folder / "model.safetensors")
    for layer, block in enumerate(reference.reader.blocks):
        for path, module in block.named_modules():
            if isinstance(module, torch.nn.Linear):
                # Seven bits: without VNNI, oneDNN adds two products in 16 bits, which eight bits overflow.
                scale = module.weight.detach().abs().amax(1, keepdim=True) / 63
                rounded = (module.weight.detach() / scale).round()
                weight = f"{STORED[name]}.layers.{layer}.{path}.weight"
                tensors[weight], tensors[f"{weight}_scale"] = rounded.to(torch.int8), scale
                module.weight.data = rounded * scale
                module.register_forward_pre_hook(_rounded_per_token)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": {**weights, "strategy": "token", "dynamic": True},
            }
        },
        "ignore": ["lm_head", "re:.*visual.*", "re:.*vision_model.*", "re:.*connector.*"],
    }
    (out / "config.json").write_text(json.dumps(config))
    return out


def _rounded_per_token(module: Any, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
    scale = given[0].abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
    return (given[0] / scale).round().clamp(-128, 127) * scale
