"""Bytes of an artefact, turned into JSON objects, pydantic models and tensors without trusting any of them.

Nothing is allocated before its size is known and allowed. safetensors alone does not promise what a server needs: it
has no digest, and its header may declare tensors that nobody asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from .arrays import frozen
from .errors import FormatError, printable

MAX_JSON_BYTES = 1 << 20
MAX_TENSOR_BYTES = 1 << 30
MAX_HEADER_BYTES = 1 << 20

# The scalars of every manifest. Strict, so that true is no number and "1" no integer; an integer may stand for a float.
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Natural = Annotated[int, Field(strict=True, ge=0)]

# Text may be written in lines; what else a terminal obeys (see `printable`) has no place in an artefact.
_LAYOUT = re.compile("[\t\n\u2028\u2029]")
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor in a file must be: `dtype` in safetensors' spelling and a shape, where None stands for any size."""

    dtype: str
    shape: tuple[int | None, ...]


def parse_json(data: bytes, where: str) -> dict[str, object]:
    """A JSON object in which no key comes twice, every number is finite and no text holds control characters.

    Raises:
        FormatError: anything else. Parsers differ over duplicated keys, so a file with them means two things at once.
    """

    def without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
        seen: dict[str, object] = {}
        for key, value in pairs:
            if key in seen:
                raise FormatError(f"{where}: has the key {key[:80]!r} twice")
            seen[key] = value
        return seen

    def refuse(constant: str) -> NoReturn:
        raise FormatError(f"{where}: holds {constant}, which is not JSON")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=without_duplicates, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails for half a surrogate pair, which has no UTF-8
        check_text(value, where)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: is not valid JSON ({error.__class__.__name__}); was it cut short?") from error
    if not isinstance(value, dict):
        raise FormatError(f"{where}: is a JSON {type(value).__name__}; expected an object")
    return value


def check_text(value: object, where: str) -> None:
    """Raises FormatError where a key or a text in `value`, however deep, holds control characters.

    Tabs and line ends are allowed in texts, not in keys.
    """
    for text, is_key in _texts(value):
        shown = text if is_key else _LAYOUT.sub("", text)
        if printable(shown) != shown:
            raise FormatError(
                f"{where}: has control characters in the {'key' if is_key else 'text'} {shown[:80]!r}; leave them out"
            )


def _texts(value: object) -> Iterator[tuple[str, bool]]:
    if isinstance(value, str):
        yield value, False
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str):
                yield key, True
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def parse_manifest(model: type[_Model], data: bytes, where: str, *, versions: tuple[int, ...] = (1,)) -> _Model:
    """The manifest in `data` as a validated `model`. versions: the format versions that this model reads.

    Raises:
        FormatError: no JSON object, another format version, an unknown or missing field, a value out of range.
    """
    fields = parse_json(data, where)
    version = fields.get("format_version")
    if version not in versions or type(version) is not int:
        raise FormatError(
            f"{where}: has format version {str(version)[:20]}; this trimtab reads version "
            f"{' and '.join(map(str, versions))}, so upgrade trimtab or save the artefact anew"
        )
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise FormatError(f"{where}: {sentence(error)}") from error


def sentence(error: ValidationError) -> str:
    """The first complaint of a validation in one line, and how many more there are."""
    complaints = error.errors(include_url=False, include_context=False, include_input=False)
    first = complaints[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    return f"{field[:80]}: {message}{more}" if field else f"{message}{more}"


def dump_manifest(manifest: BaseModel, where: str) -> bytes:
    """The one byte sequence that stands for `manifest`: sorted keys, two spaces, UTF-8, one newline at the end.

    Fields that are None are left out, so that an optional field can be added without changing what old files save to.

    Raises:
        FormatError: it holds a number that is not finite or a control character, or is too large to be read again.
    """
    try:
        fields = manifest.model_dump(mode="json", exclude_none=True)
        check_text(fields, where)
        text = json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        data = (text + "\n").encode("utf-8")
    except ValueError as error:
        raise FormatError(f"{where}: cannot be written as JSON: {error}") from error
    if len(data) > MAX_JSON_BYTES:
        raise FormatError(f"{where}: would have {len(data):,} bytes; at most {MAX_JSON_BYTES:,} are read")
    return data


def read_tensors(data: bytes, specs: Mapping[str, TensorSpec], where: str) -> dict[str, npt.NDArray[np.generic]]:
    """The tensors of a safetensors file: exactly those that `specs` names, read-only, sharing memory with `data`.

    Raises:
        FormatError: another set of names, a wrong dtype or shape, offsets with holes or overlaps, a wrong length.
    """
    if len(data) < 8:
        raise FormatError(f"{where}: has {len(data)} bytes; a safetensors file has at least 8")
    header_bytes = int.from_bytes(data[:8], "little")
    if header_bytes > min(MAX_HEADER_BYTES, len(data) - 8):
        raise FormatError(f"{where}: declares a header of {header_bytes:,} bytes, more than it has or may have")
    header = parse_json(data[8 : 8 + header_bytes], where)
    if missing := sorted(specs.keys() - header.keys()):
        raise FormatError(f"{where}: lacks the tensor {missing[0]!r} that its manifest implies")
    if extra := sorted(header.keys() - specs.keys()):
        raise FormatError(f"{where}: holds {extra[0][:80]!r}, which its manifest does not imply")

    body = memoryview(data)[8 + header_bytes :]
    tensors: dict[str, npt.NDArray[np.generic]] = {}
    spans: list[tuple[int, int]] = []
    for name, spec in specs.items():
        shape, start, end = _layout(header[name], spec, f"{where}: tensor {name!r}")
        spans.append((start, end))
        if end > len(body):
            raise FormatError(f"{where}: tensor {name!r} ends at byte {end:,} of {len(body):,}; the file was cut short")
        array = np.frombuffer(data, _DTYPES[spec.dtype], offset=8 + header_bytes + start, count=_count(shape))
        tensors[name] = frozen(np.require(array.reshape(shape), requirements="A"))
    reached = 0
    for start, end in sorted(spans):
        if start != reached:
            raise FormatError(f"{where}: its tensors overlap or leave a hole at byte {min(start, reached):,}")
        reached = end
    if reached != len(body):
        raise FormatError(f"{where}: {len(body) - reached:,} bytes follow the last tensor")
    return tensors


def _layout(entry: object, spec: TensorSpec, what: str) -> tuple[tuple[int, ...], int, int]:
    """Shape, start and end of one header entry, checked against `spec` and against each other."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{what} has a malformed header entry")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if entry["dtype"] != spec.dtype:
        raise FormatError(f"{what} has dtype {str(entry['dtype'])[:20]}; expected {spec.dtype}")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise FormatError(f"{what} has a malformed shape or offsets")
    fits = len(shape) == len(spec.shape) and all(
        size >= 1 and wanted in (None, size) for size, wanted in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in spec.shape)
        raise FormatError(f"{what} has shape {str(shape)[:80]}; expected [{wanted}]")
    start, end = offsets
    if end - start != _count(shape) * _DTYPES[spec.dtype].itemsize:
        raise FormatError(f"{what} spans {end - start:,} bytes, which its shape {shape} does not fill")
    return tuple(shape), start, end


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _count(shape: tuple[int, ...] | list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
