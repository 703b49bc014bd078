"""Steering vectors of other tools, one tensor per layer: `.safetensors` and `.npz`, and what their names say.

The files come from strangers: they are read with numpy alone, never unpickled, and every size is checked before memory
is taken for it. GGUF files are read in `gguf`; torch's `.pt` files by `trimtab.offline`, which has torch.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from .arrays import bfloat16_as_float32
from .decode import MAX_TENSOR_BYTES
from .errors import FormatError, IntegrityError, ModelMismatchError, VectorError
from .files import read_bytes
from .vector import SteeringVector

# `3`, `layer_3`, `model.layers.3`, `transformer.h.3`, `direction.3`, `layers.3.vector`, `blocks.3.hook_resid_post`
_KEY = re.compile(
    r"(?:[A-Za-z_]\w*\.)*?(?:(?:layers?|blocks?|h|direction)[._]?)?(\d{1,5})"
    r"(?:\.(?:vector|direction|output|hook_resid_post))?",
    re.ASCII,
)
_IN_CONTAINER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h|direction)[._]?\d", re.ASCII)
_TOWER = re.compile(r"vision|visual|audio|encoder", re.IGNORECASE)
_FLOATS: dict[str, np.dtype[Any]] = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
# llama.cpp's name for some families that transformers tells apart.
_ALIASES = {"mistral": "llama", "mixtral": "llama"}


Format = Literal["gguf", "npz", "pt", "safetensors"]
ENDINGS: dict[str, Format] = {
    ".bin": "pt",
    ".gguf": "gguf",
    ".npz": "npz",
    ".pt": "pt",
    ".pth": "pt",
    ".safetensors": "safetensors",
}


def layer_of(key: object) -> int | None:
    """The decoder layer (0-based, after that block) that a key of another tool's file names; None where it names none.

    Integers and their digits count, and names that end in a layer of the decoder, such as `model.layers.3`. A name that
    goes on to a part of the layer (`.mlp`, `.hook_resid_pre`), or lies in a vision tower, is no such name.
    """
    if isinstance(key, int) and not isinstance(key, bool):
        return key if key >= 0 else None
    if not isinstance(key, str) or not (match := _KEY.fullmatch(key)) or _TOWER.search(key):
        return None
    return int(match.group(1)) if key.isdigit() or _IN_CONTAINER.search(key) else None


def by_layer(named: Iterable[tuple[object, npt.ArrayLike]], where: str) -> dict[int, SteeringVector]:
    """The vectors of a file by layer, ascending. named: keys and arrays, [D] or [1, D] of one D.

    Raises:
        FormatError: no vector, a key without a layer, two for one layer, or another shape.
        IntegrityError: numbers that are not finite.
    """
    vectors: dict[int, SteeringVector] = {}
    for key, value in named:
        if (layer := layer_of(key)) is None:
            raise FormatError(
                f"{where}: has the key {str(key)[:80]!r}; expected decoder layers, 0-based: 3, layer_3, model.layers.3"
            )
        if layer in vectors:
            raise FormatError(f"{where}: has two vectors for layer {layer}")
        array = np.asarray(value)
        try:
            vectors[layer] = SteeringVector(layer, array[0] if array.ndim == 2 and len(array) == 1 else array)
        except VectorError as error:
            kind = IntegrityError if "NaN" in str(error) else FormatError
            raise kind(f"{where}: {str(key)[:80]}: {error}") from error
    if not vectors:
        raise FormatError(f"{where}: holds no vector at all")
    if len(sizes := {vector.hidden_size for vector in vectors.values()}) > 1:
        raise FormatError(f"{where}: holds vectors of different sizes {sorted(sizes)}")
    return {layer: vectors[layer] for layer in sorted(vectors)}


def read_safetensors(path: Path) -> dict[int, SteeringVector]:
    """The vectors of a `.safetensors` file by layer: float64, float32, float16 or bfloat16; keys as `layer_of` reads.

    Raises:
        FormatError, IntegrityError: no safetensors file, another dtype, or as `by_layer`.
    """
    path = Path(path).resolve()  # downloads are often links into a cache
    data = read_bytes(path.parent, path.name, MAX_TENSOR_BYTES)
    try:
        entries: list[tuple[str, Mapping[str, Any]]] = deserialize(data)  # type: ignore[no-untyped-call]  # native
    except SafetensorError as error:
        raise FormatError(f"{path.name}: is no safetensors file, or was cut short ({error})") from error
    return by_layer(((name, _array(path.name, name, entry)) for name, entry in entries), path.name)


def read_npz(path: Path) -> dict[int, SteeringVector]:
    """The vectors of a numpy `.npz` file by layer, of any floating dtype; keys as `layer_of` reads.

    Raises:
        FormatError, IntegrityError: no zip of plain arrays, more bytes than are read, or as `by_layer`.
    """
    path = Path(path).resolve()
    data = read_bytes(path.parent, path.name, MAX_TENSOR_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            entries = file.infolist()
            if sum(entry.file_size for entry in entries) > MAX_TENSOR_BYTES:
                raise FormatError(f"{path.name}: would unpack to more than {MAX_TENSOR_BYTES:,} bytes")
            named = [(entry.filename.removesuffix(".npy"), _npy(file.read(entry), path.name)) for entry in entries]
    except (zipfile.BadZipFile, ValueError, EOFError, RuntimeError, NotImplementedError) as error:
        raise FormatError(f"{path.name}: is no .npz file of plain arrays ({error})") from error
    return by_layer(named, path.name)


def check_family(hint: object, families: Collection[str], where: str) -> None:
    """Raises ModelMismatchError where a file's hint names another family of models than `families`, see `families_of`.

    A file without a hint passes.
    """
    own = {_plain(name) for name in families}
    own |= {alias for name, alias in _ALIASES.items() if name in own}
    if isinstance(hint, str) and hint and _plain(hint) not in own:
        raise ModelMismatchError(
            f"{where}: says that it was made for a {hint[:40]!r} model; this one is {' / '.join(sorted(families))}. "
            "Does it fit? If you know that it does, say so with --any-family"
        )


def families_of(folder: Path) -> frozenset[str]:
    """The names by which tools call the family of a model folder: its model types, its text model's, its architecture.

    Raises:
        FormatError: no config.json that can be read.
    """
    try:
        config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
        found = [config.get("model_type"), (config.get("text_config") or {}).get("model_type")]
        found += [re.sub("For[A-Z].*", "", name) for name in config.get("architectures") or ()]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise FormatError(f"{Path(folder).name}/config.json: is missing or cannot be read") from error
    return frozenset(name.lower() for name in found if isinstance(name, str))


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _array(where: str, name: str, entry: Mapping[str, Any]) -> npt.NDArray[np.generic]:
    if entry["dtype"] == "BF16":
        return bfloat16_as_float32(bytes(entry["data"])).reshape(entry["shape"])
    if entry["dtype"] not in _FLOATS:
        raise FormatError(f"{where}: {name[:80]!r} has dtype {entry['dtype']}; {', '.join(_FLOATS)} and BF16 are read")
    array: npt.NDArray[np.generic] = np.frombuffer(entry["data"], _FLOATS[entry["dtype"]])
    return array.reshape(entry["shape"])


def _npy(data: bytes, where: str) -> npt.NDArray[np.generic]:
    """The array of a `.npy` file, its header checked against its length."""
    file = io.BytesIO(data)
    form: Any = np.lib.format  # without types in numpy's stubs
    version = form.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise FormatError(f"{where}: holds an array of .npy version {version}; versions 1.0 and 2.0 are read")
    shape, fortran, dtype = (form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0)(file)
    if dtype.kind != "f" or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise FormatError(
            f"{where}: holds an array of dtype {dtype} and shape {shape}; expected whole floating numbers"
        )
    array = np.frombuffer(data, dtype, offset=file.tell())
    return array.reshape(shape, order="F" if fortran else "C")
