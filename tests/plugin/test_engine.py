"""The parts are put together once per process, and only an engine that asked for them meets them."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm import ModelRegistry
from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.v1.engine.input_processor import InputProcessor

from tests.plugin.conftest import DEPTH
from tests.plugin.test_admission import extra_args_of, request_with
from trimtab.plugin import engine, engine_args
from trimtab.plugin.capture.request import CaptureConfig
from trimtab.plugin.compat.wrapping import is_wrapped
from trimtab.plugin.config import SteeringConfig
from trimtab.plugin.errors import StartupError
from trimtab.vectors import Profile, SteeringVector, load_profile, save_profile

STEERS = SteeringConfig(profiles="p", digest="digest", rows={1: 4}, slots=3).to_additional_config()
CAPTURES = CaptureConfig((1,)).to_additional_config()


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a function of vLLM's that hands out the request that it is given."""
    monkeypatch.setattr(InputProcessor, "process_inputs", lambda self, request: request)
    engine.install()


def process(request: Any, additional_config: dict[str, Any]) -> Any:
    processor: Any = SimpleNamespace(
        vllm_config=SimpleNamespace(
            additional_config=additional_config, model_config=SimpleNamespace(dtype=torch.float32)
        ),
        renderer=SimpleNamespace(mm_processor_cache=None),
    )
    through: Any = InputProcessor.process_inputs
    return through(processor, request)


@pytest.mark.usefixtures("_installed")
def test_installing_again_wraps_once() -> None:
    once = InputProcessor.process_inputs
    engine.install()
    assert InputProcessor.process_inputs is once
    assert is_wrapped(once)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("key", ["steering", "trimtab", "capture", "trimtab_capture"])
def test_an_engine_that_did_not_ask_keeps_every_key_of_its_requests(key: str) -> None:
    extra_args = {key: {"of": "somebody else"}}
    for additional_config in ({}, {"other": 1}):
        assert extra_args_of(process(request_with(dict(extra_args)), additional_config)) == extra_args


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("additional_config", "key", "message"),
    [
        (CAPTURES, "steering", "started without steering profiles"),
        (STEERS, "capture", "was not started for capture"),
        (CAPTURES, "trimtab_capture", "is reserved"),
    ],
)
def test_an_engine_that_asked_for_one_refuses_the_other(
    additional_config: dict[str, Any], key: str, message: str
) -> None:
    wish: Any = {"positions": "all"} if key == "capture" else "polite"
    with pytest.raises(VLLMValidationError, match=message):
        process(request_with({key: wish}), additional_config)


def test_an_architecture_that_somebody_else_took_over_is_refused_before_the_engine_starts() -> None:
    model = SimpleNamespace(architecture="LlamaForCausalLM")
    engine.register_models()
    engine.check_registered(model)
    ModelRegistry.register_model("LlamaForCausalLM", "vllm.model_executor.models.llama:LlamaForCausalLM")
    try:
        with pytest.raises(StartupError, match="has registered another class for LlamaForCausalLM"):
            engine.check_registered(model)
    finally:
        engine.register_models()


def test_another_number_in_a_vector_or_another_folder_keeps_the_compile_cache(folder: Path, tmp_path: Path) -> None:
    def key(arguments: dict[str, Any]) -> str:
        return VllmConfig(additional_config=arguments["additional_config"]).compute_hash()

    before = engine_args(folder)
    engine.install()
    moved = shutil.copytree(folder, tmp_path / "moved")
    model = load_profile(moved / "brief").manifest.base_model
    other = Profile.coarse("brief", [SteeringVector(DEPTH - 1, [1.0, 1.0, 1.0, 2.0])], model=model)
    save_profile(other, moved / "brief", overwrite=True)
    assert engine_args(moved) != before
    assert key(engine_args(moved)) == key(before)
    theirs = engine_args(folder, additional_config={"other": 1})
    others = [engine_args(folder, rows=1), theirs, {"additional_config": {}}]
    assert len({key(before), *map(key, others)}) == 4
