"""A good profile folder, made by hand, for the attacks that spoil it.

Where an attack changes the tensor file, the digest in the manifest is made to match, so that the check under attack is
the one that answers.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.vectors import load_profile
from trimtab.vectors.errors import ProfileError

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
