"""Ways to spoil a profile folder, from one flipped bit to a new file with a digest that fits."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Callable
from copy import deepcopy
from typing import Any

Folder = dict[str, bytes]
"""profile.json and profile.safetensors, as they are on disk."""

MANIFEST, TENSORS = "profile.json", "profile.safetensors"

_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3,
        4,
        64,
        2**31,
        2**63,
        10**40,
        0.5,
        -0.0,
        1e-46,
        1e10,
        1.1e10,
        1e39,
        1e308,
        -1e3,
    ),
    *(
        "",
        "0",
        "1",
        "none",
        "p",
        "../p",
        "é",
        "\x1b[2J",
        "a" * 100,
        "\ud800",
        "fine",
        "coarse",
        "all",
        "image",
        "answer",
    ),
    *([], [0], [1, 1], [True], {}, {"1": 1}, {"01": 1}, {"1": {"vector": 5.0}}, [[]], {"steering": "x"}),
    *("token", "sequence", "cosine", "euclidean", "Llama", "sampled-sha256:" + "0" * 64, "0" * 64, "F16", "F64", "I32"),
)


def bytes_of(folder: Folder, rng: random.Random) -> Folder:
    """A few bytes of one file flipped, cut, doubled, moved or made up."""
    name = rng.choice((MANIFEST, TENSORS))
    data = bytearray(folder[name])
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 8, 32))
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at:at] = rng.randbytes(length)
        else:
            del data[at:]
    return {**folder, name: bytes(data)}


def manifest(folder: Folder, rng: random.Random) -> Folder:
    """One or two values of the manifest replaced, taken away, added, renamed or written twice."""
    value = json.loads(folder[MANIFEST])
    for _ in range(rng.choice((1, 1, 2))):
        _change(value, rng)
    text = json.dumps(value)
    if rng.randrange(12) == 0:  # a key twice
        key = rng.choice(list(value))
        text = text[:-1] + f", {json.dumps(key)}: {json.dumps(deepcopy(rng.choice(_VALUES)))}}}"
    return {**folder, MANIFEST: text.encode()}


def header(folder: Folder, rng: random.Random) -> Folder:
    """The header of the tensors changed, with a digest that fits."""
    data = folder[TENSORS]
    (length,) = struct.unpack("<Q", data[:8])
    value = json.loads(data[8 : 8 + length])
    _change(value, rng)
    text = json.dumps(value).encode()
    said = len(text) + rng.choice((0, 0, 0, 0, 1, -1, 2**40))
    return _signed(folder, struct.pack("<Q", max(said, 0)) + text + data[8 + length :])


def numbers(folder: Folder, rng: random.Random) -> Folder:
    """One number of the tensors changed a little or a lot, with a digest that fits."""
    data = bytearray(folder[TENSORS])
    (length,) = struct.unpack("<Q", data[:8])
    at = 8 + length + 4 * rng.randrange((len(data) - 8 - length) // 4)
    (old,) = struct.unpack("<f", data[at : at + 4])
    near = old * (1 + rng.choice((1e-7, 1e-5, 1e-3, -1e-5)))
    new = rng.choice((near, near, -old, 0.0, 1e6, 2e6, float("nan"), float("inf"), 1e-45))
    data[at : at + 4] = struct.pack("<f", new)
    return _signed(folder, bytes(data))


def signed_bytes(folder: Folder, rng: random.Random) -> Folder:
    """`bytes_of`, with a digest that fits."""
    return _signed(folder, bytes_of({**folder, MANIFEST: folder[TENSORS]}, rng)[TENSORS])


MUTATIONS: tuple[Callable[[Folder, random.Random], Folder], ...] = (bytes_of, manifest, header, numbers, signed_bytes)


def _signed(folder: Folder, tensors: bytes) -> Folder:
    value = json.loads(folder[MANIFEST])
    value["sha256"] = {TENSORS: hashlib.sha256(tensors).hexdigest()}
    return {MANIFEST: json.dumps(value).encode(), TENSORS: tensors}


def _change(value: Any, rng: random.Random) -> None:
    """Change something in a tree of JSON."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        inner = [key for key in keys if isinstance(value[key], dict | list) and value[key]]
        if not inner or rng.randrange(2):
            break
        value = value[rng.choice(inner)]
    kind = rng.randrange(5)
    if not keys or kind == 0:
        new = deepcopy(rng.choice(_VALUES))
        if isinstance(value, dict):
            value[rng.choice(("extra", "alpha", "1", "2", "limits", "shares", "layers.1.vector"))] = new
        else:
            value.insert(rng.randrange(len(keys) + 1), new)
        return
    key = rng.choice(keys)
    if kind == 1:
        del value[key]
    elif kind == 2 and isinstance(value[key], int | float) and not isinstance(value[key], bool):
        value[key] += rng.choice((1, -1, 0.5, 1e-5, 1e6))
    elif kind == 3 and isinstance(value, dict):
        value[rng.choice((f"{key} ", str(key).upper(), f"0{key}", "ключ"))] = value.pop(key)
    else:
        value[key] = deepcopy(rng.choice(_VALUES))
