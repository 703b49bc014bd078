"""Control vectors in GGUF files, as repeng and llama.cpp write them.

The file comes from a stranger, so it is read here with every count and offset checked against its length. The reader of
the `gguf` package believes them: a file of 57 bytes that declares a long array takes all of the machine's memory.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import Float32, bfloat16_as_float32
from .decode import MAX_TENSOR_BYTES
from .errors import FormatError, IntegrityError, VectorError
from .files import read_bytes
from .imports import check_family
from .vector import SteeringVector

_MAX_ENTRIES = 100_000
_STRING, _ARRAY = 8, 9
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_BFLOAT16 = 30
_FLOATS: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2"), _BFLOAT16: np.dtype("<u2")}


def read_gguf(path: Path, families: Collection[str] | None = None) -> dict[int, SteeringVector]:
    """The vectors of a GGUF control vector by layer, ascending.

    Tensor `direction.<l>` is the vector after block l, counted from 0 as here. repeng takes it from
    hidden_states[l + 1], which is what block l puts out, and adds it to that same output; llama.cpp adds it to the
    output of block l too. Both leave out block 0, so their files begin with `direction.1`: that is the second block,
    and not the first counted from 1. (repeng took the last block's vector *after* the final norm; at that layer the
    fit is approximate.)

    families: names of the family of the model that the vectors are meant for (`families_of`), with which the file's
    `model_hint` is compared; None does not look at it.

    repeng's vectors have length 1, which is small beside an activation: give such a profile a wide range of alpha.

    Raises:
        FormatError: no little-endian GGUF control vector of version 2 or 3, cut short, or neither float32, float16
            nor bfloat16.
        IntegrityError: numbers that are not finite.
        ModelMismatchError: its hint names another family of models.
    """
    path = Path(path).resolve()  # downloads are often links into a cache
    where = path.name
    cursor = _Cursor(read_bytes(path.parent, path.name, MAX_TENSOR_BYTES), where)
    if cursor.take(4) != b"GGUF":
        raise FormatError(f"{where}: is no GGUF file")
    version = cursor.number("I")
    if version not in (2, 3):
        raise FormatError(f"{where}: has GGUF version {version}; little-endian versions 2 and 3 are read")
    tensor_count, field_count = cursor.number("Q"), cursor.number("Q")
    if max(tensor_count, field_count) > _MAX_ENTRIES:
        raise FormatError(f"{where}: declares {max(tensor_count, field_count):,} entries; at most {_MAX_ENTRIES:,}")
    fields = {cursor.string(): cursor.value(cursor.number("I")) for _ in range(field_count)}
    if fields.get("general.architecture") != "controlvector":
        raise FormatError(f"{where}: holds {str(fields.get('general.architecture'))[:40]!r} and no control vector")
    if families is not None:
        check_family(fields.get("controlvector.model_hint"), families, where)
    entries = [_entry(cursor) for _ in range(tensor_count)]
    if sum(size * _FLOATS[kind].itemsize for _, size, kind, _ in entries) > len(cursor.data):
        raise FormatError(f"{where}: declares more numbers than it holds; it was cut short or altered")

    alignment = fields.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
        raise FormatError(f"{where}: has an alignment that cannot be")
    start = -(-cursor.position // alignment) * alignment
    vectors: dict[int, SteeringVector] = {}
    for name, size, kind, offset in entries:
        if not (match := re.fullmatch(r"direction\.(\d{1,5})", name, re.ASCII)):
            raise FormatError(f"{where}: holds the tensor {name[:80]!r}; a control vector has direction.<layer> only")
        layer = int(match.group(1))
        if layer in vectors:
            raise FormatError(f"{where}: holds two directions for layer {layer}")
        cursor.position = start + offset
        raw = cursor.take(size * _FLOATS[kind].itemsize)
        values: Float32 = (
            bfloat16_as_float32(raw) if kind == _BFLOAT16 else np.frombuffer(raw, _FLOATS[kind]).astype(np.float32)
        )
        try:
            vectors[layer] = SteeringVector(layer, values)
        except VectorError as error:
            raise IntegrityError(f"{where}: {name}: {error}") from error
    if not vectors:
        raise FormatError(f"{where}: holds no direction at all")
    if len(sizes := {vector.hidden_size for vector in vectors.values()}) > 1:
        raise FormatError(f"{where}: holds directions of different sizes {sorted(sizes)}")
    return {layer: vectors[layer] for layer in sorted(vectors)}


def _entry(cursor: _Cursor) -> tuple[str, int, int, int]:
    """Name, number of elements, type and offset of the next tensor, which must be a vector of floats."""
    name = cursor.string()
    dimensions = cursor.number("I")
    if dimensions != 1:
        raise FormatError(f"{cursor.where}: {name[:80]!r} has {dimensions} dimensions; a direction has one")
    size, kind, offset = cursor.number("Q"), cursor.number("I"), cursor.number("Q")
    if kind not in _FLOATS:
        raise FormatError(f"{cursor.where}: {name[:80]!r} has GGML type {kind}; float32, float16 and bfloat16 are read")
    return name, size, kind, offset


class _Cursor:
    """A position in a file's bytes that cannot leave them."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where, self.position = data, where, 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise FormatError(f"{self.where}: ends at byte {len(self.data):,} of {end:,}; it was cut short or altered")
        taken, self.position = self.data[self.position : end], end
        return taken

    def number(self, code: str) -> int:
        return int(struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0])

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", errors="replace")

    def value(self, kind: int) -> str | int | None:
        """A metadata value; None for those that a control vector has no use for, which are only stepped over."""
        if kind == _STRING:
            return self.string()
        if kind == 4:
            return self.number("I")
        if kind != _ARRAY:
            self.take(self._scalar_bytes(kind))
            return None
        kind, count = self.number("I"), self.number("Q")
        if kind != _STRING:
            self.take(self._scalar_bytes(kind) * count)
            return None
        for _ in range(count):  # ends at the end of the file at the latest: every string takes eight bytes or more
            self.take(self.number("Q"))
        return None

    def _scalar_bytes(self, kind: int) -> int:
        if kind not in _SCALAR_BYTES:
            raise FormatError(f"{self.where}: holds metadata of the unknown type {kind}")
        return _SCALAR_BYTES[kind]
