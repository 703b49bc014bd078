"""docs/profile-format.md says all that profile.json may hold, and shows what a stranger's reader needs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from safetensors.numpy import load

from trimtab.vectors import load_profile
from trimtab.vectors.arrays import MAX_ENTRY
from trimtab.vectors.format import FORMAT_VERSIONS
from trimtab.vectors.manifest import MAX_ALPHA, MAX_LENGTH, MIN_HIDDEN, ProfileManifest

PAGE = (Path(__file__).parents[2] / "docs" / "profile-format.md").read_text()
GOLDEN = Path(__file__).parent / "golden"


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def fields_of(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for inner in models_in(field.annotation):
            yield from fields_of(inner)


def test_every_field_of_the_schema_has_a_row_on_the_page() -> None:
    rows = "\n".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|"))
    found = list(fields_of(ProfileManifest))
    assert {"gate", "limits", "hidden_size", "chat_template", "ported_from"} <= set(found)
    assert [name for name in found if f"`{name}`" not in rows] == []


def test_every_field_of_version_2_is_marked() -> None:
    marked = set(re.findall(r"\| `(\w+)` \(2\)", PAGE))
    golden = [load_profile(GOLDEN / "v2" / name).manifest for name in ("golden-full", "golden-watch")]
    assert marked == {name.split(".")[-1] for one in golden for name in one.fields_of_version_2}
    assert FORMAT_VERSIONS == (1, 2)


@pytest.mark.parametrize(
    ("bound", "written"),
    [(MAX_ALPHA, "≤ 1000"), (MAX_LENGTH, "0 to 1e10"), (MIN_HIDDEN, "1e-6 to 1e10"), (MAX_ENTRY, "at most 1e6")],
)
def test_the_bounds_on_the_page_are_those_of_the_schema(bound: float, written: str) -> None:
    assert written in PAGE
    assert bound in [float(number) for number in re.findall(r"[0-9.e-]+", written)]


@pytest.mark.parametrize(
    "folder", ["v1/golden-coarse", "v1/golden-fine", "v2/golden-full", "v2/golden-watch", "v2/golden-minimal"]
)
def test_a_reader_that_follows_the_page_finds_the_same_digest(folder: str) -> None:
    """The digest as the page words it, with json, hashlib and safetensors alone."""
    manifest = json.loads((GOLDEN / folder / "profile.json").read_text())
    data = (GOLDEN / folder / "profile.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == manifest["sha256"]["profile.safetensors"]
    tensors = load(data)
    parts = ["vector"] if manifest["kind"] == "coarse" else ["centroids", "vectors"]
    names = [f"layers.{layer}.{part}" for layer in manifest["layers"] for part in parts]
    assert sorted(names) == sorted(tensors)
    gate = {"max_distance": None, **manifest["gate"]} if "gate" in manifest else None
    head = {
        "gate": gate,
        "kind": manifest["kind"],
        "positions": manifest["positions"],
        "tensors": [[name, list(tensors[name].shape)] for name in names],
    }
    digest = hashlib.sha256(b"trimtab profile 1\n" + json.dumps(head, sort_keys=True).encode() + b"\n")
    for name in names:
        digest.update(tensors[name].tobytes())
    assert digest.hexdigest() == load_profile(GOLDEN / folder).digest
