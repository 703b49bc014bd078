"""A gallery of bad profile folders: tensors and files. Each is refused with its own sentence that names the file first.

`forge` starts from a good profile, which a test below shows to load.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from tests.vectors.forgery import CENTROIDS, VECTOR, D, Header, forge, header, refused, safetensors
from trimtab.vectors import load_profile
from trimtab.vectors.errors import FormatError, IntegrityError, ProfileError


@pytest.mark.parametrize("kind", ["coarse", "fine"])
def test_the_forgery_loads_while_nothing_is_wrong_with_it(tmp_path: Path, kind: str) -> None:
    assert load_profile(forge(tmp_path / "p", kind)).manifest.kind == kind


# The tensor file -----------------------------------------------------------------------------------------------------


def changed(**entry: object) -> Header:
    return {"layers.1.vector": {**header()["layers.1.vector"], **entry}}


def with_extra(name: str, offsets: list[int]) -> Header:
    return {**header(), name: {"dtype": "F32", "shape": [D], "data_offsets": offsets}}


TENSOR_ATTACKS: dict[str, tuple[bytes, type[ProfileError], str]] = {
    "empty": (b"", FormatError, "at least 8"),
    "header longer than the file": (struct.pack("<Q", 1 << 40) + b"{}", FormatError, "declares a header"),
    "header of 2^64-1": (struct.pack("<Q", 2**64 - 1) + b"{}", FormatError, "declares a header"),
    "header over its cap": (safetensors(b" " * (1 << 20) + b"{}", b""), FormatError, "declares a header"),
    "header no JSON": (safetensors(b"{'a': 1}", VECTOR), FormatError, "not valid JSON"),
    "header no UTF-8": (safetensors(b'{"\xff": 1}', VECTOR), FormatError, "not valid JSON"),
    "header a list": (safetensors(b"[]", VECTOR), FormatError, "JSON list"),
    "header nested too deep": (safetensors(b"[" * 100_000, VECTOR), FormatError, "not valid JSON"),
    "tensor named twice": (
        safetensors(json.dumps(header()).encode()[:-1] + b"," + json.dumps(header()).encode()[1:], VECTOR),
        FormatError,
        "the key 'layers.1.vector' twice",
    ),
    "missing tensor": (safetensors({}, b""), FormatError, "lacks the tensor 'layers.1.vector'"),
    "extra tensor": (safetensors(with_extra("x", [16, 32]), VECTOR * 2), FormatError, "holds 'x'"),
    "extra tensor of no bytes": (
        safetensors({**header(), "x": {"dtype": "F32", "shape": [0], "data_offsets": [16, 16]}}, VECTOR),
        FormatError,
        "holds 'x'",
    ),
    "layer written 01": (
        safetensors({"layers.01.vector": header()["layers.1.vector"]}, VECTOR),
        FormatError,
        "lacks the tensor",
    ),
    "metadata": (safetensors({**header(), "__metadata__": {"a": "b"}}, VECTOR), FormatError, "holds '__metadata__'"),
    "float16": (safetensors(changed(dtype="F16", data_offsets=[0, 8]), VECTOR[:8]), FormatError, "dtype F16"),
    "float64": (safetensors(changed(dtype="F64", data_offsets=[0, 32]), VECTOR * 2), FormatError, "dtype F64"),
    "dtype a list": (safetensors(changed(dtype=["F32"]), VECTOR), FormatError, "dtype"),
    "huge shape": (safetensors(changed(shape=[10**15]), VECTOR), FormatError, r"expected \[4\]"),
    "huge matching span": (
        safetensors(changed(shape=[10**15], data_offsets=[0, 4 * 10**15]), VECTOR),
        FormatError,
        r"expected \[4\]",
    ),
    "two dimensions": (safetensors(changed(shape=[1, D]), VECTOR), FormatError, r"expected \[4\]"),
    "no dimensions": (safetensors(changed(shape=[]), VECTOR), FormatError, r"expected \[4\]"),
    "negative size": (safetensors(changed(shape=[-4]), VECTOR), FormatError, "malformed shape"),
    "size a float": (safetensors(changed(shape=[4.0]), VECTOR), FormatError, "malformed shape"),
    "size true": (safetensors(changed(shape=[True]), VECTOR), FormatError, "malformed shape"),
    "offsets reversed": (safetensors(changed(data_offsets=[16, 0]), VECTOR), FormatError, "does not fill"),
    "offset negative": (safetensors(changed(data_offsets=[-16, 0]), VECTOR), FormatError, "malformed shape"),
    "three offsets": (safetensors(changed(data_offsets=[0, 16, 16]), VECTOR), FormatError, "malformed shape"),
    "offsets past the end": (
        safetensors(changed(data_offsets=[2**62, 2**62 + 16]), VECTOR),
        FormatError,
        "the file was cut short",
    ),
    "unknown entry key": (safetensors(changed(strides=[1]), VECTOR), FormatError, "malformed header entry"),
    "entry a number": (safetensors({"layers.1.vector": 3}, VECTOR), FormatError, "malformed header entry"),
    "cut short": (safetensors(header(), VECTOR[:-1]), FormatError, "the file was cut short"),
    "hole before": (
        safetensors(changed(data_offsets=[4, 20]), b"hole" + VECTOR),
        FormatError,
        "overlap or leave a hole",
    ),
    "bytes after": (safetensors(header(), VECTOR + b"payload"), FormatError, "7 bytes follow"),
    "NaN": (safetensors(header(), struct.pack("<4f", 1, float("nan"), 0, 0)), IntegrityError, "NaN"),
    "infinite": (safetensors(header(), struct.pack("<4f", 1, float("-inf"), 0, 0)), IntegrityError, "infinite"),
    "out of range": (safetensors(header(), struct.pack("<4f", 2e6, 0, 0, 0)), IntegrityError, "entries up to"),
    "longer than its norm says": (safetensors(header(), struct.pack("<4f", 50, 0, 0, 0)), IntegrityError, "norm 5"),
}


@pytest.mark.parametrize("attack", TENSOR_ATTACKS)
def test_a_bad_tensor_file_is_refused(tmp_path: Path, attack: str) -> None:
    tensors, error, sentence = TENSOR_ATTACKS[attack]
    refused(forge(tmp_path / "p", tensors=tensors), error, sentence)


def fine_header(**vectors: object) -> Header:
    good = header("fine")
    return {**good, "layers.1.vectors": {**good["layers.1.vectors"], **vectors}}


FINE_ATTACKS: dict[str, tuple[bytes, str]] = {
    "tensors overlap": (safetensors(fine_header(data_offsets=[16, 48]), CENTROIDS * 2), "overlap or leave a hole"),
    "tensors are one": (safetensors(fine_header(data_offsets=[0, 32]), CENTROIDS), "overlap or leave a hole"),
    "more centroids": (
        safetensors(fine_header(shape=[1, D], data_offsets=[32, 48]), CENTROIDS + VECTOR),
        "2 centroids and 1 vectors",
    ),
    "no concepts": (safetensors(fine_header(shape=[0, D], data_offsets=[32, 32]), CENTROIDS), r"expected \[any, 4\]"),
    "other size": (safetensors(fine_header(shape=[4, 2]), CENTROIDS * 2), r"expected \[any, 4\]"),
}


@pytest.mark.parametrize("attack", FINE_ATTACKS)
def test_a_bad_fine_tensor_file_is_refused(tmp_path: Path, attack: str) -> None:
    tensors, sentence = FINE_ATTACKS[attack]
    refused(forge(tmp_path / "p", "fine", tensors), FormatError, sentence)


@pytest.mark.parametrize("position", [0, 8, 40, -1])
def test_a_flipped_bit_anywhere_in_the_tensors_is_noticed(tmp_path: Path, position: int) -> None:
    path = forge(tmp_path / "p") / "profile.safetensors"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    refused(tmp_path / "p", IntegrityError, "sha256")


def test_every_truncation_of_either_file_is_refused(tmp_path: Path) -> None:
    folder = forge(tmp_path / "p")
    for path in (folder / "profile.json", folder / "profile.safetensors"):
        whole = path.read_bytes()
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            refused(folder, IntegrityError if path.suffix == ".safetensors" else FormatError, "cut short")
        path.write_bytes(whole)
    load_profile(folder)


# The folder ----------------------------------------------------------------------------------------------------------

FILES = ["profile.json", "profile.safetensors"]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (forge(tmp_path / "p") / name).unlink()
    refused(tmp_path / "p", FormatError, rf"^p/{name}: is missing")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "p", FormatError, r"^p/profile\.json: is missing")


@pytest.mark.parametrize("name", FILES)
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = forge(tmp_path / "p") / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    refused(tmp_path / "p", FormatError, rf"^p/{name}: is a link out of its folder")


def test_a_link_to_a_folder_beside_it_whose_name_begins_alike_is_refused(tmp_path: Path) -> None:
    path = forge(tmp_path / "p") / "profile.safetensors"
    (tmp_path / "p2").mkdir()
    path.rename(tmp_path / "p2" / "x")
    path.symlink_to("../p2/x")
    refused(tmp_path / "p", FormatError, "link out of its folder")


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    path = forge(tmp_path / "p") / "profile.safetensors"
    path.rename(path.with_name("data"))
    path.symlink_to("data")
    assert load_profile(tmp_path / "p").name == "p"


@pytest.mark.parametrize("name", FILES)
def test_links_in_a_circle_pipes_and_folders_are_refused_at_once(tmp_path: Path, name: str) -> None:
    path = forge(tmp_path / "p") / name
    path.unlink()
    path.symlink_to(name)
    refused(tmp_path / "p", FormatError, "cannot be read")
    path.unlink()
    os.mkfifo(path)  # opening it as one opens a file would wait for ever
    refused(tmp_path / "p", FormatError, "not a regular file")
    path.unlink()
    path.mkdir()
    refused(tmp_path / "p", FormatError, "not a regular file|cannot be read")


def test_a_tensor_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = forge(tmp_path / "p") / "profile.safetensors"
    os.truncate(path, (1 << 30) + 1)  # sparse: takes no space
    refused(tmp_path / "p", FormatError, r"at most 1,073,741,824 are read")
