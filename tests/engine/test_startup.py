"""An engine that could not steer rightly does not start, and says why in a sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.engine.engine import Engine, RefusedError
from trimtab.plugin import engine_args
from trimtab.plugin.errors import StartupError
from trimtab.vectors import Registry, save_profile
from trimtab.vectors.errors import FormatError, IntegrityError, ModelMismatchError

pytestmark = pytest.mark.engine


@pytest.fixture
def folder(registry: Registry, tmp_path: Path) -> Path:
    """A folder of two good profiles, to be spoilt."""
    for name in ("yes-to-no", "coarse-last-all"):
        save_profile(registry[name], tmp_path / "profiles" / name)
    return tmp_path / "profiles"


def test_a_good_folder_is_taken(folder: Path, model: Path) -> None:
    assert (
        engine_args(folder, model=model)["additional_config"]["trimtab"]["slots"] == 4
    )  # with one for nobody and one for the self-check


def test_a_missing_folder_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(FormatError, match=r"^nowhere: is no folder; "):
        engine_args(tmp_path / "nowhere", model=model)


def test_an_empty_folder_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(FormatError, match="holds no profile"):
        engine_args(tmp_path, model=model)


@pytest.mark.parametrize("name", ["profile.json", "profile.safetensors"])
def test_a_half_written_profile_is_refused(folder: Path, model: Path, name: str) -> None:
    path = folder / "yes-to-no" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((FormatError, IntegrityError), match=rf"^yes-to-no/{name}"):
        engine_args(folder, model=model)
    path.unlink()
    with pytest.raises(FormatError, match=rf"^yes-to-no/{name}: is missing"):
        engine_args(folder, model=model)


def test_a_profile_for_other_weights_is_refused(folder: Path, model: Path, tmp_path: Path) -> None:
    other = shutil.copytree(model, tmp_path / "other")
    weights = other / "model.safetensors"
    spoilt = bytearray(weights.read_bytes())
    spoilt[-1000:] = bytes(1000)
    weights.write_bytes(spoilt)
    engine_args(folder, model=model)
    with pytest.raises(ModelMismatchError, match=r"^coarse-last-all/profile\.json: "):
        engine_args(folder, model=other)


def test_a_layer_that_the_model_lacks_is_refused(folder: Path, model: Path) -> None:
    with pytest.raises(StartupError, match="layer 99 cannot be armed: the model has layers 0 to 5"):
        engine_args(folder, model=model, layers=[99])


@pytest.mark.parametrize("allowed", ["", "lora_filesystem_resolver", "resolver,trimtab2", "resolver, trimtab"])
def test_an_allow_list_without_trimtab_is_refused(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", allowed)
    # vLLM compares the names as they stand between the commas: with a space before it ours is another.
    with pytest.raises(StartupError, match="is an allow-list without 'trimtab'"):
        engine_args(folder, model=model)
    monkeypatch.setenv("VLLM_PLUGINS", f"{allowed},trimtab")
    assert engine_args(folder, model=model)


def test_a_feature_that_could_make_an_answer_wrong_is_refused(folder: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="StartupError: trimtab cannot steer with weights that are offloaded"):
        Engine(tmp_path / "log", model, folder, cpu_offload_gb=0.001)
