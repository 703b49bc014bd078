"""A gallery of bad manifests. Each is refused with its own sentence that begins with the file at fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vectors.forgery import forge, manifest, refused
from trimtab.vectors import load_profile
from trimtab.vectors.errors import FormatError, IntegrityError

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
    "a fingerprint that is none": (
        {"base_model": {**MODEL, "fingerprint": "sampled-sha256:0"}},
        "base_model.fingerprint",
    ),
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
