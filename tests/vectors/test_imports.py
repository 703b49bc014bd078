"""Vectors of other tools in .safetensors and .npz files, and which layer a key of theirs means."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trimtab.vectors.errors import FormatError, ModelMismatchError, ProfileError
from trimtab.vectors.imports import check_family, families_of, layer_of, read_npz, read_safetensors


@pytest.mark.parametrize(
    "key",
    [
        3,
        "3",
        "layer_3",
        "layer.3",
        "layers.3",
        "layer3",
        "block_3",
        "model.layers.3",
        "model.language_model.layers.3",
        "language_model.model.layers.3",
        "transformer.h.3",
        "direction.3",
        "layers.3.vector",
        "blocks.3.hook_resid_post",
    ],
)
def test_a_key_that_names_a_layer_of_the_decoder_is_read(key: object) -> None:
    assert layer_of(key) == 3


@pytest.mark.parametrize(
    "key",
    [
        -1,
        True,
        3.0,
        None,
        "",
        "last",
        "-3",
        "٣",
        "³",
        "model.3",
        "mlp.3",
        "vision_tower.encoder.layers.3",
        "model.visual.blocks.3",
        "model.layers.3.mlp",
        "model.layers.3.self_attn.o_proj",
        "blocks.3.hook_resid_pre",
        "layers.3.centroids",
        "layers.3.4",
        "layers.3\n",
        "layers." + "9" * 6,
    ],
)
def test_a_key_that_names_none_is_not_guessed_at(key: object) -> None:
    assert layer_of(key) is None


def bfloat16_file(path: Path) -> Path:
    header = {"model.layers.2": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [0, 6]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + np.array([0x3F80, 0xC020, 0x0000], "<u2").tobytes())
    return path


def test_safetensors_of_every_floating_dtype_are_read(tmp_path: Path) -> None:
    values = {f"model.layers.{layer}": np.arange(3, dtype=kind) for layer, kind in enumerate(("f2", "f4", "f8"))}
    save_file(values, tmp_path / "v.safetensors")
    vectors = read_safetensors(tmp_path / "v.safetensors")
    assert {layer: vector.values.tolist() for layer, vector in vectors.items()} == {
        layer: [0, 1, 2] for layer in range(3)
    }
    (vector,) = read_safetensors(bfloat16_file(tmp_path / "b.safetensors")).values()
    assert (vector.layer, vector.values.tolist()) == (2, [1.0, -2.5, 0.0])


def test_npz_of_every_floating_dtype_is_read(tmp_path: Path) -> None:
    entries = {"0.npy": npy(np.ones(3, "f2")), "layer_1.npy": npy(np.ones((1, 3), "f8"))}
    (tmp_path / "v.npz").write_bytes(zipped(entries))
    assert {layer: vector.values.tolist() for layer, vector in read_npz(tmp_path / "v.npz").items()} == {
        0: [1, 1, 1],
        1: [1, 1, 1],
    }


def zipped(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def npy(array: np.ndarray, declared: tuple[int, ...] | None = None) -> bytes:
    """A .npy file; declared: another shape than the array's in its header, of as many characters with the padding."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    data = file.getvalue()
    if declared is not None:
        true, false = (str(shape).encode() for shape in (array.shape, declared))
        padding = b" " * (len(false) - len(true))
        assert true + b", }" + padding in data
        data = data.replace(true + b", }" + padding, false + b", }")
    return data


BAD_NPZ = {
    "nothing": (b"", "no .npz file"),
    "text": (b"hello", "no .npz file"),
    "cut short": (zipped({"1.npy": npy(np.ones(9))})[:-30], "no .npz file"),
    "no array": (zipped({"1.npy": b"hello"}), "no .npz file"),
    "nothing in it": (zipped({}), "no vector at all"),
    "pickled objects": (zipped({"1.npy": npy(np.array([{}], object))}), "dtype object"),
    "integers": (zipped({"1.npy": npy(np.ones(3, int))}), "dtype int64"),
    "a matrix": (zipped({"1.npy": npy(np.ones((2, 3)))}), r"shape \(2, 3\)"),
    "nan": (zipped({"1.npy": npy(np.array([np.nan]))}), "NaN"),
    "a key without a layer": (zipped({"mean.npy": npy(np.ones(3))}), "has the key mean|has the key 'mean'"),
    "two for a layer": (zipped({"1.npy": npy(np.ones(3)), "layer_1.npy": npy(np.ones(3))}), "two vectors for layer 1"),
    "two sizes": (zipped({"1.npy": npy(np.ones(3)), "2.npy": npy(np.ones(4))}), "different sizes"),
    # np.load would take the memory first and look at the length afterwards.
    "more declared than there": (zipped({"1.npy": npy(np.ones(3), (9 * 10**12,))}), "expected whole floating"),
    "a bomb": (zipped({f"{layer}.npy": b"\0" * (1 << 28) for layer in range(5)}), "would unpack to more than"),
}


@pytest.mark.parametrize("kind", BAD_NPZ)
def test_a_bad_npz_is_one_sentence(tmp_path: Path, kind: str) -> None:
    data, sentence = BAD_NPZ[kind]
    (tmp_path / "v.npz").write_bytes(data)
    with pytest.raises(ProfileError, match=sentence) as caught:
        read_npz(tmp_path / "v.npz")
    assert str(caught.value).startswith("v.npz: ")


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, struct.pack("<Q", 2) + b"{}", b"PK\x03\x04"])
def test_a_bad_safetensors_file_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "v.safetensors").write_bytes(data)
    with pytest.raises(FormatError, match=r"^v\.safetensors: "):
        read_safetensors(tmp_path / "v.safetensors")


def test_safetensors_of_integers_are_refused(tmp_path: Path) -> None:
    save_file({"1": np.ones(3, np.int64)}, tmp_path / "v.safetensors")
    with pytest.raises(FormatError, match="has dtype I64; F64, F32, F16 and BF16 are read"):
        read_safetensors(tmp_path / "v.safetensors")


def test_the_family_of_a_model_is_what_its_configuration_says(tmp_path: Path) -> None:
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "text_config": {"model_type": "mistral"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    families = families_of(tmp_path)
    assert families == {"llava", "mistral"}
    for hint in ("llava", "Mistral", "llama", "", None):
        check_family(hint, families, "v")
    with pytest.raises(ModelMismatchError, match="made for a 'qwen2' model; this one is llava / mistral"):
        check_family("qwen2", families, "v")
    with pytest.raises(FormatError, match="is missing or cannot be read"):
        families_of(tmp_path / "absent")
