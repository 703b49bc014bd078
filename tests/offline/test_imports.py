from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from trimtab.offline.errors import DataError, SettingError
from trimtab.offline.steering.foreign import imported_profile, read_foreign, read_pt
from trimtab.vectors import ModelIdentity
from trimtab.vectors.errors import FormatError

MODEL = ModelIdentity(architecture="Made", hidden_size=3, num_layers=4, fingerprint="sampled-sha256:" + "0" * 64)


@dataclass
class SteeringVector:
    """The fields of the data class in steering-vectors' steering_vector.py."""

    layer_activations: dict[int, torch.Tensor]
    layer_type: str = "decoder_block"


@pytest.fixture
def theirs() -> Iterator[type[SteeringVector]]:
    """The class under the name that a pickle of that package carries."""
    module = ModuleType("steering_vectors.steering_vector")
    SteeringVector.__module__ = module.__name__
    module.SteeringVector = SteeringVector  # type: ignore[attr-defined]
    sys.modules["steering_vectors"] = ModuleType("steering_vectors")
    sys.modules[module.__name__] = module
    try:
        yield SteeringVector
    finally:
        del sys.modules[module.__name__], sys.modules["steering_vectors"]


def test_a_dict_of_tensors_is_read_by_layer(tmp_path: Path) -> None:
    torch.save({0: torch.tensor([1.0, 2, 3]), "2": torch.ones(1, 3, dtype=torch.bfloat16)}, tmp_path / "v.pt")
    vectors = read_pt(tmp_path / "v.pt")
    assert sorted(vectors) == [0, 2]
    assert vectors[0].values.tolist() == [1, 2, 3]
    assert vectors[2].layer == 2
    assert vectors[2].values.dtype == np.float32


def test_a_steering_vectors_file_is_read_without_that_package(tmp_path: Path, theirs: type[SteeringVector]) -> None:
    torch.save(theirs({1: torch.arange(3.0)}), tmp_path / "v.pt")
    torch.save(theirs({1: torch.arange(3.0)}, "mlp"), tmp_path / "mlp.pt")
    for name in [name for name in sys.modules if name.startswith("steering_vectors")]:
        sys.modules[name] = None  # type: ignore[assignment]  # an import would fail
    try:
        assert read_pt(tmp_path / "v.pt")[1].values.tolist() == [0, 1, 2]
        with pytest.raises(DataError, match="steers 'mlp'"):
            read_pt(tmp_path / "mlp.pt")
    finally:
        for name in ("steering_vectors", "steering_vectors.steering_vector"):
            sys.modules[name] = ModuleType(name)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('it ran')",))


def test_names_of_layers_are_read(tmp_path: Path) -> None:
    torch.save({"model.layers.3": torch.ones(3), "model.language_model.layers.10": torch.ones(3)}, tmp_path / "v.pt")
    assert list(read_pt(tmp_path / "v.pt")) == [3, 10]
    torch.save({"model.layers.3.mlp": torch.ones(3)}, tmp_path / "v.pt")
    with pytest.raises(DataError, match=r"v\.pt: has the key model\.layers\.3\.mlp|'model\.layers\.3\.mlp'"):
        read_pt(tmp_path / "v.pt")


def test_the_ending_says_how_a_file_is_read_unless_the_caller_does(tmp_path: Path) -> None:
    values = {"model.layers.1": np.array([1, 2, 3], np.float32)}
    np.savez(tmp_path / "v.npz", layer_1=values["model.layers.1"])
    save_file(values, tmp_path / "v.safetensors")
    torch.save({1: torch.tensor([1.0, 2, 3])}, tmp_path / "v.PT")
    for name in ("v.npz", "v.safetensors", "v.PT"):
        assert read_foreign(tmp_path / name)[1].values.tolist() == [1, 2, 3]
    (tmp_path / "v.npz").rename(tmp_path / "vectors")
    assert list(read_foreign(tmp_path / "vectors", "npz")) == [1]
    with pytest.raises(DataError, match="its ending says nothing; give --format, one of gguf, npz, pt, safetensors"):
        read_foreign(tmp_path / "vectors")


def test_a_file_with_code_in_it_is_refused_and_never_run(tmp_path: Path) -> None:
    torch.save({0: torch.ones(3), 1: Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(DataError, match="no \\.pt file of plain tensors"):
        read_pt(tmp_path / "bomb.pt")


@pytest.mark.parametrize(
    "content",
    [
        {},
        [torch.ones(3)],
        torch.ones(3),
        {-1: torch.ones(3)},
        {"last": torch.ones(3)},
        {True: torch.ones(3)},
        {0: [1.0, 2.0]},
        {0: torch.ones(3, dtype=torch.int64)},
        {0: torch.ones(2, 3)},
        {0: torch.tensor([1.0, torch.nan, 0])},
    ],
)
def test_what_is_no_vector_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "v.pt")
    with pytest.raises(DataError, match=r"v\.pt"):
        read_pt(tmp_path / "v.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut short"])
def test_a_file_that_torch_cannot_read_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"v\.pt"):
        read_pt(tmp_path / "v.pt")
    with pytest.raises(DataError, match="cannot be read"):
        read_pt(tmp_path / "absent.pt")


def test_an_import_fits_every_model_of_its_shape_and_no_other(tmp_path: Path) -> None:
    torch.save({1: torch.ones(3), 2: torch.ones(3)}, tmp_path / "v.pt")
    vectors = read_pt(tmp_path / "v.pt")
    profile = imported_profile("theirs", vectors, MODEL, source="v.pt", layers=[2])
    assert profile.layers == (2,)
    profile.manifest.base_model.check(MODEL.model_copy(update={"fingerprint": "sampled-sha256:" + "1" * 64}))
    with pytest.raises(FormatError):
        imported_profile("theirs", vectors, MODEL.model_copy(update={"hidden_size": 4}), source="v.pt")
    with pytest.raises(FormatError):
        imported_profile("theirs", vectors, MODEL.model_copy(update={"num_layers": 2}), source="v.pt")
    with pytest.raises(SettingError, match="it has the layers 1, 2"):
        imported_profile("theirs", vectors, MODEL, source="v.pt", layers=[3])
