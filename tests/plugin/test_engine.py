"""The parts are put together once per process, and only an engine that asked for them meets them."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.model_executor.model_loader import base_loader
from vllm.v1.engine.input_processor import InputProcessor

from tests.plugin.conftest import DEPTH
from tests.plugin.small_model import Decoder, engine_of
from tests.plugin.test_admission import extra_args_of, request_with
from trimtab.plugin import engine, engine_args
from trimtab.plugin.capture.request import CaptureConfig
from trimtab.plugin.compat.wrapping import is_wrapped
from trimtab.plugin.config import SteeringConfig
from trimtab.plugin.model.arming import tables_of
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


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("asks", "prefix", "runner_type", "is_armed"),
    [
        (True, "", "generate", True),
        (False, "", "generate", False),
        (True, "draft_model", "draft", False),
        (True, "", "draft", False),  # as most drafters are built
        (True, "language_model", "generate", False),
    ],
)
def test_the_outermost_model_of_an_engine_that_asked_is_armed_and_no_other(
    asks: bool,
    prefix: str,
    runner_type: str,
    is_armed: bool,
    folder: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    built = Decoder()
    monkeypatch.setattr(base_loader, "initialize_model", lambda vllm_config, **found: built)
    engine.install()
    config = engine_of(folder, model_folder, built)
    if not asks:
        config.additional_config = {}
    config.model_config.runner_type = "generate"
    model_config = SimpleNamespace(runner_type=runner_type)
    loader: Any = base_loader
    assert loader.initialize_model(config, prefix=prefix, model_config=model_config) is built
    assert (tables_of(built) is not None) is is_armed
    assert hasattr(built, "get_model_state_cls") is is_armed
    assert not hasattr(Decoder(), "get_model_state_cls")


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
