"""A gallery of bad profile folders. Each is refused with its own sentence that begins with the file at fault.

Where an attack changes the tensor file, the digest in the manifest is made to match, so that the check under attack is
the one that answers. `forge` starts from a good profile, which a test below shows to load.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.vectors import load_profile
from trimtab.vectors.errors import FormatError, IntegrityError, ProfileError

D = 4
VECTOR = np.array([3, 0, 4, 0], "<f4").tobytes()
CENTROIDS = np.arange(8, dtype="<f4").tobytes()

Header = dict[str, Any]


def header(kind: str = "coarse") -> Header:
    if kind == "coarse":
        return {"layers.1.vector": {"dtype": "F32", "shape": [D], "data_offsets": [0, 16]}}
    return {
        "layers.1.centroids": {"dtype": "F32", "shape": [2, D], "data_offsets": [0, 32]},
        "layers.1.vectors": {"dtype": "F32", "shape": [2, D], "data_offsets": [32, 64]},
    }


def manifest(kind: str = "coarse") -> dict[str, Any]:
    return {
        "format_version": 1,
        "name": "p",
        "description": "",
        "base_model": {"architecture": "Llama", "hidden_size": D, "num_layers": 2, "fingerprint": None},
        "kind": kind,
        "layers": [1],
        "positions": "answer",
        "gate": None if kind == "coarse" else {"scope": "token", "metric": "euclidean", "max_distance": None},
        "alpha": {"default": 1.0, "min": 0.0, "max": 2.0},
        "norms": {"1": {"vector": 5.0 if kind == "coarse" else np.sqrt(4**2 + 5**2 + 6**2 + 7**2), "hidden": None}},
        "provenance": {},
    }


def safetensors(header: Header | bytes, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def forge(folder: Path, of_kind: str = "coarse", tensors: bytes | None = None, **fields: Any) -> Path:
    """A profile folder with a matching digest, whatever `tensors` and the manifest's `fields` are."""
    body = VECTOR if of_kind == "coarse" else CENTROIDS + CENTROIDS
    tensors = safetensors(header(of_kind), body) if tensors is None else tensors
    digest = {"profile.safetensors": hashlib.sha256(tensors).hexdigest()}
    folder.mkdir()
    (folder / "profile.json").write_text(json.dumps({**manifest(of_kind), "sha256": digest, **fields}))
    (folder / "profile.safetensors").write_bytes(tensors)
    return folder


def refused(folder: Path, error: type[ProfileError], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        load_profile(folder)
    assert type(caught.value) is error
    assert str(caught.value).startswith("p/")
    assert len(str(caught.value)) < 400


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


# The manifest --------------------------------------------------------------------------------------------------------

MODEL = manifest()["base_model"]
MANIFEST_ATTACKS: dict[str, tuple[dict[str, Any], str]] = {
    "version 3": ({"format_version": 3}, "format version 3; this trimtab reads version 1 and 2"),
    "version 1.0": ({"format_version": 1.0}, r"format version 1\.0"),
    "a field of version 2 in version 1": ({"touched": {"1": 0.5}}, "touched is a field of format version 2"),
    "version true": ({"format_version": True}, "format version True"),
    "version missing": ({"format_version": None}, "format version None"),
    "unknown field": ({"hook": "os.system"}, "hook"),
    "unknown field within": ({"alpha": {"default": 1.0, "scale": 2}}, "alpha.scale"),
    "hostile name": ({"name": "../../etc"}, "is no profile name"),
    "name none": ({"name": "none"}, "reserved"),
    "name a number": ({"name": 7}, "name"),
    "description too deep": ({"description": [[[]]]}, "description"),
    "unknown kind": ({"kind": "medium"}, "kind"),
    "fine by word only": ({"kind": "fine"}, "needs a gate"),
    "fine by word with a gate": ({"kind": "fine", "gate": {}}, "lacks the tensor 'layers.1.centroids'"),
    "gate on coarse": ({"gate": {}}, "coarse profile has no gate"),
    "unknown positions": ({"positions": "everywhere"}, "positions"),
    "no layers": ({"layers": [], "norms": {}}, "layers"),
    "layer twice": ({"layers": [1, 1]}, "sorted and unique"),
    "layers unsorted": ({"layers": [1, 0]}, "sorted and unique"),
    "layer negative": ({"layers": [-1]}, "layers"),
    "layer true": ({"layers": [True]}, "layers"),
    "layer as text": ({"layers": ["1"]}, "layers"),
    "layer that the model lacks": ({"layers": [2]}, "has layers 0 to 1"),
    "layer that the file lacks": (
        {"layers": [0, 1], "norms": {"0": {"vector": 1}, "1": {"vector": 5}}},
        "lacks the tensor 'layers.0.vector'",
    ),
    "other layer than the file's": ({"layers": [0], "norms": {"0": {"vector": 5}}}, "lacks the tensor"),
    "other hidden size": ({"base_model": {**MODEL, "hidden_size": 5}}, r"expected \[5\]"),
    "huge hidden size": ({"base_model": {**MODEL, "hidden_size": 10**18}}, "hidden_size"),
    "hidden size zero": ({"base_model": {**MODEL, "hidden_size": 0}}, "hidden_size"),
    "no model": ({"base_model": None}, "base_model"),
    "line break in the architecture": ({"base_model": {**MODEL, "architecture": "A\nB"}}, "architecture"),
    "norms missing": ({"norms": {}}, "norms are given for layers"),
    "norm negative": ({"norms": {"1": {"vector": -5}}}, "norms"),
    "norm too small for the tensors": ({"norms": {"1": {"vector": 0.05}}}, "the manifest gives the norm 0.05"),
    "norm key 01": ({"norms": {"01": {"vector": 5}}}, "leading zeros"),
    "alpha range reversed": ({"alpha": {"default": 1, "min": 2, "max": 0}}, "does not hold"),
    "alpha huge": ({"alpha": {"default": 1, "min": 0, "max": 1e9}}, "alpha.max"),
    "alpha as text": ({"alpha": {"default": "1"}}, "alpha.default"),
    "alpha true": ({"alpha": {"default": True}}, "alpha.default"),
    "digest missing": ({"sha256": {}}, "gives no sha256"),
    "digest short": ({"sha256": {"profile.safetensors": "ab"}}, "sha256"),
    "digest of another file": ({"sha256": {"../other": "0" * 64}}, "sha256"),
    "digest of another content": ({"sha256": {"profile.safetensors": "0" * 64}}, "its sha256 is"),
    "half a character": ({"description": "\ud800"}, "not valid JSON"),
    # Numbers whose square or sum leaves float32.
    "norm huge": ({"norms": {"1": {"vector": 1e30}}}, r"norms\.1\.vector: .* less than or equal to 10000000000"),
    "hidden norm huge": ({"norms": {"1": {"vector": 5, "hidden": 1e30}}}, r"norms\.1\.hidden"),
    "hidden norm that float32 takes for zero": ({"norms": {"1": {"vector": 5, "hidden": 1e-46}}}, r"norms\.1\.hidden"),
    # What a terminal obeys.
    "an escape in the description": ({"description": "\x1b[31mred"}, r"control characters in the text '\\x1b\[31mred'"),
    "a carriage return": ({"description": "safe\rfake"}, "control characters in the text"),
    "a C1 control": ({"description": "\x9b31m"}, "control characters in the text"),
    "text that runs the other way": ({"description": "\u202egnp.exe"}, r"control characters in the text '\\u202e"),
    "an escape in a figure": ({"provenance": {"evaluation": {"a": [{"b": "\x1b"}]}}}, "control characters in the text"),
    "an escape in the name of a figure": ({"provenance": {"evaluation": {"\x1b": 1}}}, "control characters in the key"),
    "a line end in a word": ({"provenance": {"samples": {"a\nb": 1}}}, "control characters in the key"),
    "an escape in an unknown field": ({"\x1b[2J": 1}, "control characters in the key"),
}

TWO = {"1": [0.5, 0.5]}
VERSION_2_ATTACKS: dict[str, tuple[dict[str, Any], str]] = {
    "limit huge": ({"gate": {"max_distance": 1e30}}, r"gate\.max_distance: .* less than or equal to 10000000000"),
    "limit of a concept huge": ({"gate": {"limits": {"1": [1.0, 1e30]}}}, r"gate\.limits\.1\.1"),
    "limit of a concept negative": ({"gate": {"limits": {"1": [1.0, -1.0]}}}, r"gate\.limits\.1\.1"),
    "limit of a concept no cosine": (
        {"gate": {"metric": "cosine", "limits": {"1": [3.0, None]}}},
        "no cosine distance",
    ),
    "limits for fewer concepts": ({"gate": {"limits": {"1": [1.0]}}}, "1 gate.limits for 2 concepts"),
    "limits for another layer": ({"gate": {"limits": {"0": [1.0, 1.0]}}}, "gate.limits is given for layer 0"),
    "limits with a key 01": ({"gate": {"limits": {"01": [1.0, 1.0]}}}, "leading zeros"),
    "shares over 1": ({"shares": {"1": [0.9, 0.2]}}, "sum to 1.1"),
    "a share over 1": ({"shares": {"1": [1.5, 0.0]}}, r"shares\.1\.0"),
    "a share negative": ({"shares": {"1": [-0.5, 0.5]}}, r"shares\.1\.0"),
    "shares for more concepts": ({"shares": {"1": [0.1, 0.1, 0.1]}}, "3 shares for 2 concepts"),
    "shares for no concepts": ({"shares": {"1": []}}, r"shares\.1"),
    "shares for another layer": ({"shares": {"0": [0.5, 0.5]}}, "shares is given for layer 0"),
    "touched for another layer": ({"touched": {"0": 0.5}}, "touched is given for layer 0"),
    "touched over 1": ({"touched": {"1": 1.5}}, r"touched\.1"),
    "ported from nowhere": ({"ported_from": []}, "ported_from"),
    "ported from a number": ({"ported_from": [1]}, r"ported_from\.0"),
    "a template that is no digest": ({"provenance": {"chat_template": "{{ messages }}"}}, "chat_template"),
}


@pytest.mark.parametrize("attack", VERSION_2_ATTACKS)
def test_a_bad_manifest_of_version_2_is_refused(tmp_path: Path, attack: str) -> None:
    good: dict[str, Any] = {
        "format_version": 2,
        "gate": {"limits": {"1": [None, 1e10]}},
        "shares": TWO,
        "touched": {"1": 1.0},
    }
    assert load_profile(forge(tmp_path / "good", "fine", **good)).manifest.format_version == 2
    fields, sentence = VERSION_2_ATTACKS[attack]
    refused(forge(tmp_path / "p", "fine", **{**good, **fields}), FormatError, sentence)


def test_what_speaks_of_concepts_has_no_place_in_a_coarse_profile(tmp_path: Path) -> None:
    refused(forge(tmp_path / "p", format_version=2, touched={"1": 0.5}), FormatError, "coarse profile does not have")


@pytest.mark.parametrize("attack", MANIFEST_ATTACKS)
def test_a_bad_manifest_is_refused(tmp_path: Path, attack: str) -> None:
    fields, sentence = MANIFEST_ATTACKS[attack]
    error = IntegrityError if sentence.startswith(("its sha256", "the manifest gives")) else FormatError
    refused(forge(tmp_path / "p", **fields), error, sentence)


TEXT_ATTACKS: dict[str, tuple[Callable[[str], str], str]] = {
    "empty": (lambda text: "", "not valid JSON"),
    "a list": (lambda text: "[]", "JSON list"),
    "a key twice": (lambda text: text.replace('"kind"', '"name": "q", "kind"'), "the key 'name' twice"),
    "a key twice within": (lambda text: text.replace('"min"', '"max": 9.0, "min"'), "the key 'max' twice"),
    "NaN": (lambda text: text.replace('"max": 2.0', '"max": NaN'), "NaN, which is not JSON"),
    "Infinity": (lambda text: text.replace('"max": 2.0', '"max": Infinity'), "Infinity, which is not JSON"),
    "1e999": (lambda text: text.replace('"max": 2.0', '"max": 1e999'), "alpha.max"),
    "a number of 5000 digits": (lambda text: text.replace('"max": 2.0', '"max": ' + "9" * 5000), "not valid JSON"),
    "nested without end": (lambda text: text.replace('"provenance": {}', '"provenance": ' + "[" * 100_000), "JSON"),
    "two documents": (lambda text: text + text, "not valid JSON"),
    "a byte order mark": (lambda text: "\ufeff" + text, "not valid JSON"),
    "over a megabyte": (lambda text: text + " " * (1 << 20), "at most 1,048,576"),
}


@pytest.mark.parametrize("attack", TEXT_ATTACKS)
def test_a_manifest_that_is_no_plain_json_is_refused(tmp_path: Path, attack: str) -> None:
    change, sentence = TEXT_ATTACKS[attack]
    path = forge(tmp_path / "p") / "profile.json"
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    refused(tmp_path / "p", FormatError, sentence)


@pytest.mark.parametrize("depth", [50, 150, 250, 900])
def test_nesting_of_any_depth_is_loaded_or_refused_and_never_worse(tmp_path: Path, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    path = forge(tmp_path / "p") / "profile.json"
    path.write_text(path.read_text().replace('"provenance": {}', '"provenance": {"evaluation": {"a": ' + nested + "}}"))
    try:
        load_profile(tmp_path / "p")
    except FormatError:
        assert depth > 50


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
