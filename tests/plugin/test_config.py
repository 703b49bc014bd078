"""Every process of an engine agrees on profiles, armed layers and room, or the engine does not start."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

from tests.plugin.conftest import DEPTH, SIZE
from trimtab.plugin.config import SteeringConfig, engine_args, open_registry
from trimtab.plugin.config import model_folder as find_model
from trimtab.plugin.errors import StartupError
from trimtab.plugin.model.tables import SteeringTables
from trimtab.vectors import Gate, ModelIdentity, Profile, Registry, SteeringVector, save_profile
from trimtab.vectors.errors import FormatError, ModelMismatchError
from trimtab.vectors.manifest import Positions


@pytest.fixture(autouse=True)
def _no_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    monkeypatch.delenv("VLLM_USE_MODELSCOPE", raising=False)


def config_of(arguments: dict[str, Any]) -> SteeringConfig:
    """What a process of the engine reads, after the configuration has travelled as JSON."""
    found = SteeringConfig.of(SimpleNamespace(additional_config=json.loads(json.dumps(arguments["additional_config"]))))  # type: ignore[arg-type]
    assert found is not None
    return found


def served(folder: Path) -> Any:
    """What `open_registry` reads of vLLM's configuration."""
    return SimpleNamespace(
        model_config=SimpleNamespace(model=str(folder), revision=None),
        load_config=SimpleNamespace(download_dir=None),
    )


def test_the_configuration_survives_json(folder: Path) -> None:
    arguments = engine_args(folder)
    config = config_of(arguments)
    assert config.to_additional_config() == arguments["additional_config"]
    assert Path(config.profiles) == folder


def test_another_tools_configuration_is_kept(folder: Path) -> None:
    theirs = {"other": {"deep": [1]}}
    additional = engine_args(folder, additional_config=theirs)["additional_config"]
    assert additional["other"] == {"deep": [1]}
    assert set(additional) == {"other", "trimtab"}
    assert theirs == {"other": {"deep": [1]}}


@pytest.mark.parametrize("additional_config", [{}, {"other": 1}, None])
def test_an_engine_without_profiles_has_no_configuration(additional_config: object) -> None:
    assert SteeringConfig.of(SimpleNamespace(additional_config=additional_config)) is None  # type: ignore[arg-type]


def test_the_rows_are_those_of_all_profiles_and_one_for_the_self_check(folder: Path) -> None:
    config = config_of(engine_args(folder))
    assert config.rows == {0: 1 + 1, 1: 1 + 2 * 3, 2: 1 + 2}
    assert config.slots == 2 + 3


def test_room_is_added_at_every_armed_layer(folder: Path, last: Profile) -> None:
    shutil.rmtree(folder / "polite")
    config = config_of(engine_args(folder, layers=[0, 1], rows=5))
    assert config.rows == {0: 1 + 5, 1: 1 + 2 * 3 + 5, 2: 1 + 1 + 5}
    assert config.slots == 2 + 2 + 5


def load_all(tables: SteeringTables, registry: Registry) -> None:
    for profile in registry.values():
        tables.load(profile)


def test_the_room_is_enough_for_the_registry_and_no_larger(folder: Path, registry: Registry) -> None:
    config = config_of(engine_args(folder))
    load_all(SteeringTables(config.rows, config.slots, SIZE, tokens=8, requests=2), registry)
    fewer_rows = {layer: rows - 1 for layer, rows in config.rows.items()}
    for rows, slots in ((fewer_rows, config.slots), (config.rows, config.slots - 1)):
        with pytest.raises(StartupError, match="start with a larger --steering-rows"):
            load_all(SteeringTables(rows, slots, SIZE, tokens=8, requests=2), registry)


def test_the_digest_follows_all_that_is_read(folder: Path, last: Profile, model: ModelIdentity) -> None:
    before = config_of(engine_args(folder)).digest
    assert config_of(engine_args(folder)).digest == before
    wider = last.manifest.alpha.model_copy(update={"max": last.manifest.alpha.max + 1})
    wide = Profile(last.manifest.model_copy(update={"alpha": wider}), last.tensors)
    save_profile(wide, folder / "brief", overwrite=True)
    assert config_of(engine_args(folder)).digest != before
    save_profile(last, folder / "brief", overwrite=True)
    assert config_of(engine_args(folder)).digest == before
    save_profile(
        Profile.coarse("brief", [SteeringVector(2, [1.0, 1.0, 1.0, 2.0])], model=model),
        folder / "brief",
        overwrite=True,
    )
    assert config_of(engine_args(folder)).digest != before


def test_the_compile_cache_is_told_of_the_shapes_alone(folder: Path, tmp_path: Path) -> None:
    config = config_of(engine_args(folder))
    moved = config_of(engine_args(shutil.copytree(folder, tmp_path / "moved")))
    assert moved.profiles != config.profiles
    vectors = np.eye(2, SIZE)
    wide = Profile.fine("wide", {1: (vectors, vectors)}, model=Registry.open(folder)["brief"].manifest.base_model)
    save_profile(wide, folder / "wide")
    larger = config_of(engine_args(folder))
    assert config.compiled() == moved.compiled() != larger.compiled()
    assert set(config.compiled()) == {"rows", "slots", "op_version"}


def in_hub(cache: Path, contents: Path, commit: str) -> Path:
    """A model in a Hub cache, as `main`."""
    repository = cache / "models--we--small"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    return shutil.copytree(contents, repository / "snapshots" / commit)


def test_profiles_are_checked_against_the_files_that_vllm_loads(
    folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(model_folder, tmp_path / "other")
    (other / "model.safetensors").write_bytes((model_folder / "model.safetensors").read_bytes() + b"\0")
    old = in_hub(tmp_path / "downloads", model_folder, "a" * 40)
    new = in_hub(tmp_path / "downloads", other, "b" * 40)
    assert find_model("we/small", None, str(tmp_path / "downloads")) == new
    assert find_model("we/small", "a" * 40, str(tmp_path / "downloads")) == old
    with pytest.raises(StartupError, match="are not on this machine"):
        find_model("we/small", None, str(tmp_path / "elsewhere"))
    config, asked = config_of(engine_args(folder)), served(Path("we/small"))
    asked.load_config.download_dir = str(tmp_path / "downloads")
    with pytest.raises(ModelMismatchError, match="made for another model"):
        open_registry(config, asked)
    asked.model_config.revision = "a" * 40
    assert open_registry(config, asked)


def test_modelscope_is_asked_where_vllm_asks_it(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not installed here: a package of that name that answers as its own function does.
    package = tmp_path / "modelscope" / "hub"
    package.mkdir(parents=True)
    for part in (package.parent, package):
        (part / "__init__.py").touch()
    (package / "snapshot_download.py").write_text(
        "def snapshot_download(model_id, revision=None, local_files_only=False):\n"
        "    if not local_files_only or (model_id, revision) != ('we/small', 'v1'):\n"
        "        raise ValueError('Cannot find the requested files in the cached path')\n"
        f"    return {str(model_folder)!r}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "1")
    assert find_model("we/small", "v1", None) == model_folder
    with pytest.raises(StartupError, match="are not on this machine"):
        find_model("we/small", "v2", None)


def test_a_renamed_profile_is_another_registry(folder: Path, last: Profile) -> None:
    before = config_of(engine_args(folder)).digest
    shutil.rmtree(folder / "brief")
    save_profile(Profile(last.manifest.model_copy(update={"name": "curt"}), last.tensors), folder / "curt")
    assert config_of(engine_args(folder)).digest != before


def test_a_process_opens_what_was_configured(folder: Path, model_folder: Path, registry: Registry) -> None:
    opened = open_registry(config_of(engine_args(folder, model=model_folder)), served(model_folder))
    assert {name: p.digest for name, p in opened.items()} == {name: p.digest for name, p in registry.items()}


@pytest.mark.parametrize("change", ["a profile less", "a wider range"])
def test_a_folder_that_changed_stops_the_start(folder: Path, model_folder: Path, change: str) -> None:
    config = config_of(engine_args(folder))
    if change == "a profile less":
        shutil.rmtree(folder / "brief")
    else:  # strengths that no worker's check has seen
        path = folder / "brief" / "profile.json"
        path.write_text(path.read_text().replace('"max": 2.0', '"max": 1000.0'))
    with pytest.raises(StartupError, match="changed while the engine was starting; start it again"):
        open_registry(config, served(model_folder))


def test_profiles_of_another_model_stop_the_start(folder: Path, model_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    (other / "model.safetensors").write_bytes((model_folder / "model.safetensors").read_bytes() + b"\0")
    with pytest.raises(ModelMismatchError, match="made for another model"):
        engine_args(folder, model=other)
    with pytest.raises(ModelMismatchError, match="made for another model"):
        open_registry(config_of(engine_args(folder)), served(other))


@pytest.mark.parametrize("allowed", ["", "other", "trimtab2,other", "other, trimtab"])
def test_an_allow_list_without_us_is_refused(allowed: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", allowed)
    with pytest.raises(StartupError, match=r"is an allow-list without 'trimtab', so vLLM would serve unsteered; add"):
        engine_args(folder)


@pytest.mark.parametrize("allowed", ["trimtab", "other,trimtab"])
def test_an_allow_list_with_us_is_fine(allowed: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", allowed)
    assert engine_args(folder)


def test_what_moves_on_disk_while_a_server_runs_changes_nothing(
    folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    moving = shutil.copytree(model_folder, tmp_path / "moving")
    config = config_of(engine_args(folder, model=moving))
    opened = open_registry(config, served(moving))
    shutil.rmtree(moving)
    assert open_registry(config, served(moving)) is opened


def test_weights_that_are_not_here_are_a_sentence(folder: Path) -> None:
    config = config_of(engine_args(folder))
    for name in ("somebody/a-model-that-is-not-here", "not a name: at all"):
        with pytest.raises(StartupError, match="are not on this machine, and profiles are checked against them"):
            open_registry(config, served(Path(name)))


def test_bad_arguments_are_refused(folder: Path, model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="rows must be 0 or more, not -1"):
        engine_args(folder, rows=-1)
    for layer in (-1, DEPTH):
        with pytest.raises(
            StartupError, match=rf"layer {layer} cannot be armed: the model has layers 0 to {DEPTH - 1}"
        ):
            engine_args(folder, model=model_folder, layers=[layer])
    with pytest.raises(FormatError, match="nowhere: is no folder"):
        engine_args(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="empty: holds no profile"):
        engine_args(tmp_path / "empty")


@pytest.mark.parametrize("positions", get_args(Positions))
def test_every_choice_of_positions_is_served(positions: Any, model: ModelIdentity, tmp_path: Path) -> None:
    vector = SteeringVector(1, [1.0] * SIZE)
    save_profile(Profile.coarse("p", [vector], model=model, positions=positions), tmp_path / "p")
    assert config_of(engine_args(tmp_path)).rows == {1: 2}


@pytest.mark.parametrize(
    "gate",
    [Gate(max_distance=1.0), Gate(scope="sequence"), Gate(metric="cosine"), Gate(limits={1: (0.5, None)})],
)
def test_every_gate_is_served(gate: Gate, model: ModelIdentity, tmp_path: Path) -> None:
    rows = np.eye(2, SIZE)
    save_profile(Profile.fine("p", {1: (rows, rows)}, model=model, gate=gate), tmp_path / "p")
    assert config_of(engine_args(tmp_path)).rows == {1: 1 + 2 * 2}
