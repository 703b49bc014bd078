"""GGUF control vectors, written here by the gguf package in the very calls that repeng makes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest

from trimtab.vectors import ModelIdentity, Profile, SteeringVector, read_gguf
from trimtab.vectors.errors import FormatError, IntegrityError, ModelMismatchError, ProfileError


def write(path: Path, tensors: Mapping[str, np.ndarray], architecture: str = "controlvector") -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string(f"{architecture}.model_hint", "llama")
    writer.add_uint32(f"{architecture}.layer_count", len(tensors))
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def directions(first: int, last: int, dtype: type = np.float32) -> dict[str, np.ndarray]:
    # repeng counts down from the last layer.
    return {f"direction.{layer}": np.full(5, layer, dtype) for layer in range(last, first - 1, -1)}


def test_direction_l_is_the_vector_after_block_l_counted_from_0(tmp_path: Path) -> None:
    # For a model of four blocks repeng and llama.cpp write 1, 2 and 3: all but block 0, not blocks "1 to 3 of 4".
    vectors = read_gguf(write(tmp_path / "v.gguf", directions(1, 3)))
    assert list(vectors) == [1, 2, 3]
    for layer, vector in vectors.items():
        assert vector == SteeringVector(layer, np.full(5, layer))
    model = ModelIdentity(architecture="LlamaForCausalLM", hidden_size=5, num_layers=4)
    assert Profile.coarse("imported", vectors.values(), model=model).last_layer == 3


def test_half_precision_and_other_metadata_are_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    writer.add_array("words", ["a", "bc", ""])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_bool("flag", True)
    writer.add_float64("ratio", 0.5)
    writer.add_custom_alignment(64)
    writer.add_tensor("direction.0", np.arange(3, dtype=np.float16))
    writer.add_tensor("direction.7", np.arange(3, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    vectors = read_gguf(tmp_path / "v.gguf")
    assert {layer: vector.values.tolist() for layer, vector in vectors.items()} == {0: [0, 1, 2], 7: [0, 1, 2]}


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    values = np.array([1, -2.5, 3e38, 0.0078125], np.float32)
    upper_halves = (values.view("<u4") >> 16).astype("<u2")
    writer.add_tensor("direction.1", upper_halves.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected = (upper_halves.astype("<u4") << 16).view("<f4")
    assert read_gguf(tmp_path / "v.gguf")[1].values.tolist() == expected.tolist()


@pytest.mark.parametrize("families", [{"llama"}, {"llava", "llama"}, {"Llama"}, {"mistral"}])
def test_a_hint_of_the_same_family_passes(tmp_path: Path, families: set[str]) -> None:
    assert list(read_gguf(write(tmp_path / "v.gguf", directions(1, 2)), families)) == [1, 2]


def test_a_hint_of_another_family_is_a_question(tmp_path: Path) -> None:
    path = write(tmp_path / "v.gguf", directions(1, 2))
    with pytest.raises(ModelMismatchError, match=r"^v\.gguf: says .* for a 'llama' model; this one is qwen2"):
        read_gguf(path, {"qwen2"})
    assert list(read_gguf(path)) == [1, 2]


def test_a_file_without_a_hint_passes(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    writer.add_tensor("direction.1", np.ones(3, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert list(read_gguf(tmp_path / "v.gguf", {"qwen2"})) == [1]


def test_a_download_that_is_a_link_into_a_cache_is_read(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    write(tmp_path / "cache" / "blob", directions(1, 1))
    (tmp_path / "v.gguf").symlink_to("cache/blob")
    assert list(read_gguf(tmp_path / "v.gguf")) == [1]


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"blk.0.weight": np.ones(3, np.float32)}, "direction.<layer> only"),
        ({"direction.one": np.ones(3, np.float32)}, "direction.<layer> only"),
        ({"direction.-1": np.ones(3, np.float32)}, "direction.<layer> only"),
        ({"direction.1": np.ones((2, 3), np.float32)}, "2 dimensions"),
        ({"direction.1": np.ones(3, np.float64)}, "GGML type 28"),
        ({"direction.1": np.ones(3, np.float32), "direction.01": np.ones(3, np.float32)}, "two directions for layer 1"),
        ({"direction.1": np.ones(3, np.float32), "direction.2": np.ones(4, np.float32)}, "different sizes"),
        ({}, "no direction"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_file_with_other_tensors_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(FormatError, match=sentence):
        read_gguf(write(tmp_path / "v.gguf", tensors))


def test_a_model_is_no_control_vector(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"^v\.gguf: holds 'llama' and no control vector"):
        read_gguf(write(tmp_path / "v.gguf", directions(1, 2), "llama"))


def test_nan_in_a_direction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"^v\.gguf: direction\.1: .*NaN"):
        read_gguf(write(tmp_path / "v.gguf", {"direction.1": np.array([1, np.nan], np.float32)}))


HEAD = b"GGUF" + struct.pack("<I", 3)
KEY = struct.pack("<Q", 1) + b"a"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04" + b"\0" * 100,
        b"GGUF" + struct.pack(">I", 3) + b"\0" * 100,
        b"GGUF" + struct.pack("<I", 1) + b"\0" * 100,
        HEAD + struct.pack("<QQ", 0, 2**63),
        HEAD + struct.pack("<QQ", 2**63, 0),
        # The gguf package takes all memory on these two:
        HEAD + struct.pack("<QQ", 0, 1) + KEY + struct.pack("<IIQ", 9, 4, 2**40),
        HEAD + struct.pack("<QQ", 0, 1) + KEY + struct.pack("<IIQ", 9, 8, 2**40),
        HEAD + struct.pack("<QQ", 0, 1) + KEY + struct.pack("<IIQ", 9, 9, 1),
        HEAD + struct.pack("<QQ", 0, 1) + KEY + struct.pack("<IB", 99, 0),
        HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 2**64 - 1),
    ],
    ids=range(11),
)
def test_a_file_that_declares_more_than_it_holds_is_refused_at_once(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.gguf").write_bytes(content)
    with pytest.raises(FormatError, match=r"^v\.gguf: "):
        read_gguf(tmp_path / "v.gguf")


def test_many_directions_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "v.gguf", {f"direction.{layer}": np.ones(800, np.float32) for layer in range(1, 9)})
    data = path.read_bytes()
    path.write_bytes(data[: -7 * 3200])
    with pytest.raises(FormatError, match="declares more numbers than it holds"):
        read_gguf(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "v.gguf", directions(1, 3))
    data = path.read_bytes()
    for length in range(0, len(data) - 12, 5):  # the last twelve bytes pad the last direction
        path.write_bytes(data[:length])
        with pytest.raises(FormatError):
            read_gguf(path)


def test_any_changed_byte_gives_vectors_or_an_error_of_ours(tmp_path: Path) -> None:
    path = write(tmp_path / "v.gguf", directions(1, 3))
    good = path.read_bytes()
    refused = 0
    for position in range(len(good)):
        for value in (0, 1, 0x80, 0xFF):
            path.write_bytes(good[:position] + bytes([value]) + good[position + 1 :])
            try:
                assert all(np.isfinite(vector.values).all() for vector in read_gguf(path).values())
            except ProfileError:
                refused += 1
    assert refused > len(good)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"v\.gguf: is missing"):
        read_gguf(tmp_path / "v.gguf")
