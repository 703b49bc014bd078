"""Arming changes the chosen layers of this rank, under their numbers in the whole model, and no other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.plugin.conftest import DEPTH, SIZE
from tests.plugin.small_model import Decoder, engine_of
from trimtab.plugin.errors import StartupError
from trimtab.plugin.model.arming import arm, tables_of
from trimtab.plugin.requests.positions import END
from trimtab.plugin.requests.request import Part, Steering
from trimtab.vectors import Profile, Registry


@pytest.fixture(autouse=True)
def _no_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)


def kinds(model: Decoder) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def steer_one_token(model: Decoder, *profiles: Profile) -> None:
    tables = tables_of(model)
    assert tables is not None
    parts = [Part(profile.digest, 1.0, ((0, END),), None, False) for profile in profiles]
    tables.step([tables.take(Steering(tuple(parts)))], np.zeros(1, np.int32), np.ones(1, np.int32))


@pytest.mark.parametrize("here", [range(DEPTH), range(1), range(1, 2), range(2, 3), range(1, 3)])
def test_a_rank_arms_its_own_layers_under_their_global_numbers(
    here: range, folder: Path, model_folder: Path, registry: Registry
) -> None:
    model, plain = Decoder(here), Decoder(here)
    arm(model, engine_of(folder, model_folder, model))
    tables = tables_of(model)
    assert tables is not None
    assert list(tables.layers) == list(here)
    assert kinds(model) == ["ArmedLlamaDecoderLayer" if n in here else "PPMissingLayer" for n in range(DEPTH)]
    assert all(model.layers[n].trimtab_table is table for n, table in tables.layers.items())
    assert all(table.layer == n for n, table in tables.layers.items())
    h = torch.randn(1, SIZE)
    assert all(torch.equal(*pair) for pair in zip(model(h), plain(h), strict=True))
    for name, layers in (("polite", {0, 2}), ("gender-neutral", {1}), ("brief", {2})):
        steer_one_token(model, registry[name])
        moved = not all(torch.equal(*pair) for pair in zip(model(h), plain(h), strict=True))
        assert moved == bool(layers & set(here))


def test_each_armed_layer_adds_after_its_own_forward_to_the_hidden_states(
    folder: Path, model_folder: Path, coarse: Profile
) -> None:
    model, plain = Decoder(range(1)), Decoder(range(1))
    arm(model, engine_of(folder, model_folder, model))
    steer_one_token(model, coarse)
    h = torch.randn(1, SIZE)
    (hidden, residual), (plain_hidden, plain_residual) = model(h), plain(h)
    assert torch.equal(hidden, plain_hidden + torch.tensor([[1.0, -2.0, 0.5, 0.25]]))
    assert torch.equal(residual, plain_residual)


def test_layers_that_no_profile_uses_stay_as_they_are(tmp_path: Path, model_folder: Path, folder: Path) -> None:
    (tmp_path / "one").mkdir()
    (folder / "brief").rename(tmp_path / "one" / "brief")
    model = Decoder()
    before = dict(model.named_parameters())
    arm(model, engine_of(tmp_path / "one", model_folder, model))
    assert kinds(model) == ["LlamaDecoderLayer", "LlamaDecoderLayer", "ArmedLlamaDecoderLayer"]
    assert dict(model.named_parameters()).keys() == before.keys()
    assert not [name for name in model.state_dict() if "trimtab" in name]


def test_an_engine_without_profiles_is_left_alone() -> None:
    model = Decoder()
    arm(model, SimpleNamespace(additional_config={}))  # type: ignore[arg-type]
    assert kinds(model) == ["LlamaDecoderLayer"] * DEPTH
    assert tables_of(model) is None


def test_a_layer_beyond_the_whole_model_stops_the_start(folder: Path, model_folder: Path) -> None:
    model = Decoder(range(1))
    engine = engine_of(folder, model_folder, model)
    engine.additional_config["trimtab"]["rows"]["3"] = 1
    with pytest.raises(StartupError, match="layer 3 cannot be armed: the model has layers 0 to 2"):
        arm(model, engine)


def test_a_layer_with_a_forward_of_its_own_stops_the_start(folder: Path, model_folder: Path) -> None:
    # As weight offloading leaves them: the layer would go on to call that one, and never add.
    model = Decoder()
    for layer in model.layers:
        layer.forward = layer.forward
    with pytest.raises(StartupError, match="which would hide the addition"):
        arm(model, engine_of(folder, model_folder, model))
