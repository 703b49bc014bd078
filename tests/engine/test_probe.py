"""An engine that would serve steered requests unsteered does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.engine import V2, Engine, RefusedError
from tests.engine.lawbook import LAST, MIDDLE

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("layer", [MIDDLE, LAST])
def test_a_layer_that_is_armed_and_adds_nothing_is_found_at_the_start(
    model: Path, laws: Path, tmp_path: Path, layer: int
) -> None:
    with pytest.raises(RefusedError, match=rf"StartupError: layer {layer} is armed and adds nothing"):
        Engine(tmp_path / "log", model, laws, env={"TESTS_LOSE_LAYER": str(layer)})


@pytest.mark.slow  # the probe is the same under both; that it passes under V2, each engine of V2 shows
def test_model_runner_v2_finds_it_too(model: Path, laws: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=rf"StartupError: layer {MIDDLE} is armed and adds nothing"):
        Engine(tmp_path / "log", model, laws, env={**V2, "TESTS_LOSE_LAYER": str(MIDDLE)})


@pytest.mark.slow
def test_a_compiled_graph_without_the_addition_is_found(model: Path, laws: Path, tmp_path: Path) -> None:
    env = {"VLLM_CACHE_ROOT": str(tmp_path / "cache"), "TESTS_LOSE_LAYER": str(MIDDLE)}
    with pytest.raises(RefusedError, match=rf"StartupError: layer {MIDDLE} is armed and adds nothing"):
        Engine(tmp_path / "log", model, laws, env=env, enforce_eager=False)
