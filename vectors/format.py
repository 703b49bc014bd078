"""A profile on disk: profile.json, profile.safetensors and the model card README.md in one folder.

Tensors, all float32 and little-endian: coarse `layers.<l>.vector` [D]; fine `layers.<l>.centroids` and
`layers.<l>.vectors` [K, D], K of that layer's own. Whatever format version was once released keeps loading.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

from safetensors.numpy import save

from .arrays import Float32
from .card import model_card
from .decode import (
    MAX_JSON_BYTES,
    MAX_TENSOR_BYTES,
    TensorSpec,
    dump_manifest,
    parse_manifest,
    read_tensors,
)
from .errors import FormatError, IntegrityError, ModelMismatchError, VectorError
from .files import check_digest, read_bytes, write_folder
from .identity import ModelIdentity
from .layers import CoarseLayer, FineLayer, Layer
from .manifest import TENSOR_FILE, Manifest
from .profile import Profile, named_tensors

MANIFEST_FILE = "profile.json"
CARD_FILE = "README.md"


def save_profile(profile: Profile, folder: Path, *, overwrite: bool = False) -> Path:
    """Writes `profile` to `folder` (which it makes) and returns the folder. Equal profiles give equal bytes.

    Until it is complete it is a hidden sibling, so nobody can load half of it. With `overwrite` a profile that is
    there already is replaced as a whole, along with anything else that its folder holds.

    Raises:
        FormatError: the folder exists (without `overwrite`, or when it holds no profile), or the profile is too large.
        ProfileError: the disk refused.
    """
    folder = Path(folder)
    tensors = save(dict(named_tensors(profile)))
    if len(tensors) > MAX_TENSOR_BYTES:
        raise FormatError(f"{folder.name}: has {len(tensors):,} bytes of tensors; at most {MAX_TENSOR_BYTES:,} load")
    manifest = profile.manifest.model_copy(update={"sha256": {TENSOR_FILE: hashlib.sha256(tensors).hexdigest()}})
    contents = {
        MANIFEST_FILE: dump_manifest(manifest, f"{folder.name}/{MANIFEST_FILE}"),
        TENSOR_FILE: tensors,
        CARD_FILE: model_card(profile).encode("utf-8"),
    }
    write_folder(folder, contents, overwrite=overwrite, marker=MANIFEST_FILE)
    return folder


def load_profile(folder: Path) -> Profile:
    """The profile in `folder`, after every check: sizes, names, digest, dtypes, shapes, finiteness, links, norms.

    Raises:
        FormatError: something is missing, cut short, unknown, of the wrong form or too large.
        IntegrityError: the tensors are not those that were saved, or cannot be served.
    """
    folder = Path(folder)
    where = f"{folder.name}/{MANIFEST_FILE}"
    manifest = parse_manifest(Manifest, read_bytes(folder, MANIFEST_FILE, MAX_JSON_BYTES), where)
    if TENSOR_FILE not in manifest.sha256:
        raise FormatError(f"{where}: gives no sha256 for {TENSOR_FILE}; save the profile with trimtab")
    data = read_bytes(folder, TENSOR_FILE, MAX_TENSOR_BYTES)
    where = f"{folder.name}/{TENSOR_FILE}"
    check_digest(data, manifest.sha256[TENSOR_FILE], where)
    arrays = cast("dict[str, Float32]", read_tensors(data, _specs(manifest), where))
    try:
        return Profile(manifest, {layer: _layer(arrays, layer, manifest) for layer in manifest.layers})
    except VectorError as error:
        raise IntegrityError(f"{where}: {error}") from error
    except (FormatError, IntegrityError) as error:
        raise type(error)(f"{folder.name}/{error}") from error


def verify_profile(folder: Path, model: ModelIdentity | None = None) -> Profile:
    """`load_profile`, and the check that the profile was made for `model` where one is given.

    Raises:
        ModelMismatchError: it was made for another model; says in what they differ.
        FormatError, IntegrityError: as `load_profile`.
    """
    profile = load_profile(folder)
    if model is not None:
        try:
            profile.manifest.base_model.check(model)
        except ModelMismatchError as error:
            raise ModelMismatchError(f"{Path(folder).name}/{MANIFEST_FILE}: {error}") from error
    return profile


def _specs(manifest: Manifest) -> dict[str, TensorSpec]:
    size = manifest.base_model.hidden_size
    if manifest.kind == "coarse":
        return {f"layers.{layer}.vector": TensorSpec("F32", (size,)) for layer in manifest.layers}
    return {
        f"layers.{layer}.{part}": TensorSpec("F32", (None, size))
        for layer in manifest.layers
        for part in ("centroids", "vectors")
    }


def _layer(arrays: dict[str, Float32], layer: int, manifest: Manifest) -> Layer:
    if manifest.kind == "coarse":
        return CoarseLayer(arrays[f"layers.{layer}.vector"])
    centroids, vectors = arrays[f"layers.{layer}.centroids"], arrays[f"layers.{layer}.vectors"]
    if centroids.shape != vectors.shape:
        raise FormatError(
            f"layer {layer}: has {centroids.shape[0]} centroids and {vectors.shape[0]} vectors; a concept needs both"
        )
    return FineLayer(centroids, vectors)
