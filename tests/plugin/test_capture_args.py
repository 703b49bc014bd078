"""An engine is started for capture with layers that its model has, beside whatever else it is started with."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.plugin.conftest import DEPTH
from trimtab.plugin.capture import capture_args
from trimtab.plugin.capture.request import CaptureConfig, check_capturable
from trimtab.plugin.config import SteeringConfig, engine_args
from trimtab.plugin.errors import StartupError


@pytest.fixture(autouse=True)
def _no_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)


def test_layers_reach_every_process_beside_the_profiles(model_folder: Path, folder: Path) -> None:
    arguments = capture_args([2, 0, 2], model=model_folder, **engine_args(folder))
    config = SimpleNamespace(additional_config=json.loads(json.dumps(arguments["additional_config"])))
    assert CaptureConfig.of(config) == CaptureConfig((0, 2))  # type: ignore[arg-type]
    assert SteeringConfig.of(config) is not None  # type: ignore[arg-type]


def test_an_engine_that_was_not_started_for_capture_has_no_layers() -> None:
    assert CaptureConfig.of(SimpleNamespace(additional_config={})) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [[], [DEPTH], [-1]])
def test_no_layer_and_one_that_the_model_lacks_are_refused(layers: list[int], model_folder: Path) -> None:
    with pytest.raises(StartupError, match="layer"):
        capture_args(layers, model=model_folder)


def test_an_allow_list_that_keeps_the_plugin_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "another")
    with pytest.raises(StartupError, match="VLLM_PLUGINS"):
        capture_args([0])


@pytest.mark.parametrize(
    ("speculative", "ranks", "refused"), [(None, 1, None), (object(), 1, "speculative"), (None, 2, "pipeline")]
)
def test_what_could_make_rows_wrong_keeps_an_engine_from_starting(
    speculative: object, ranks: int, refused: str | None
) -> None:
    config: Any = SimpleNamespace(
        speculative_config=speculative, parallel_config=SimpleNamespace(pipeline_parallel_size=ranks)
    )
    if refused is None:
        check_capturable(config)
    else:
        with pytest.raises(StartupError, match=refused):
            check_capturable(config)
