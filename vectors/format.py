"""A profile on disk: profile.json, profile.safetensors and the model card README.md in one folder.

Tensors, all float32 and little-endian: coarse `layers.<l>.vector` [D]; fine `layers.<l>.centroids` and
`layers.<l>.vectors` [K, D], K of that layer's own. Whatever format version was once released keeps loading.
"""

from __future__ import annotations

import hashlib
import os
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
from .errors import FormatError, IntegrityError, ModelMismatchError, ProfileError, VectorError
from .files import check_digest, read_bytes, write_folder
from .identity import ModelIdentity
from .layers import CoarseLayer, FineLayer, Layer
from .manifest import TENSOR_FILE, ProfileManifest
from .profile import Profile, named_tensors

FORMAT_VERSIONS = (1, 2)
MANIFEST_FILE = "profile.json"
CARD_FILE = "README.md"
_MOST_COMPARED = 32  # profiles beside a new one that do not state their weights


def save_profile(profile: Profile, folder: Path, *, overwrite: bool = False, durable: bool = True) -> Path:
    """Writes `profile` to `folder` (which it makes) and returns the folder. Equal profiles give equal bytes.

    The folder above it is a registry, which is served with one model: a profile for another model than those that are
    there is refused now and not at the server's start.

    Until it is complete it is a hidden sibling, so nobody can load half of it. With `overwrite` a profile that is
    there already is replaced as a whole, along with anything else that its folder holds. durable: wait until the disk
    has it, so that it outlives a power failure.

    Raises:
        FormatError: the folder exists (without `overwrite`, or when it holds no profile), or the profile is too large.
        ModelMismatchError: a profile beside it was made for another model.
        ProfileError: the disk refused.
    """
    folder = Path(folder)
    _check_beside(folder.absolute(), profile)
    tensors = save(dict(named_tensors(profile)))
    if len(tensors) > MAX_TENSOR_BYTES:
        raise FormatError(f"{folder.name}: has {len(tensors):,} bytes of tensors; at most {MAX_TENSOR_BYTES:,} load")
    manifest = profile.manifest.model_copy(
        update={
            "sha256": {TENSOR_FILE: hashlib.sha256(tensors).hexdigest()},
            # The oldest version that holds it, so that older servers read what they can; never older than it came.
            "format_version": 2 if profile.manifest.fields_of_version_2 else profile.manifest.format_version,
        }
    )
    contents = {
        MANIFEST_FILE: dump_manifest(manifest, f"{folder.name}/{MANIFEST_FILE}"),
        TENSOR_FILE: tensors,
        CARD_FILE: model_card(profile).encode("utf-8"),
    }
    write_folder(folder, contents, overwrite=overwrite, marker=MANIFEST_FILE, durable=durable)
    return folder


def load_profile(folder: Path) -> Profile:
    """The profile in `folder`, after every check: sizes, names, digest, dtypes, shapes, finiteness, links, norms.

    Raises:
        FormatError: something is missing, cut short, unknown, of the wrong form or too large.
        IntegrityError: the tensors are not those that were saved, or cannot be served.
    """
    folder = Path(folder)
    where = f"{folder.name}/{MANIFEST_FILE}"
    manifest = _read_manifest(folder)
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


def check_same_model(profile: Profile, other: str, model: ModelIdentity) -> None:
    """Raises ModelMismatchError where `profile` was made for another model than the one of the profile `other`."""
    own = profile.manifest.base_model
    if not own.agrees(model):
        raise ModelMismatchError(
            f"{profile.name}: was made for {_spoken(own)} and {other} beside it for {_spoken(model)}; "
            "a server serves one model, so keep the profiles of each model in a folder of their own"
        )


def _spoken(model: ModelIdentity) -> str:
    weights = "" if model.fingerprint is None else f", weights {model.fingerprint.removeprefix('sampled-sha256:')[:12]}"
    return f"{model.architecture} ({model.num_layers} layers of size {model.hidden_size}{weights})"


def _check_beside(folder: Path, profile: Profile) -> None:
    """Compares with profiles in the folder above until one of them states its weights: they agree with each other."""
    try:
        beside_it = [folder.parent / name for name in os.listdir(folder.parent)]
    except OSError:  # not there yet, or not to be listed: writing into it says what is wrong, if anything is
        return
    read = 0
    for path in beside_it:
        if path == folder or path.name.startswith(".") or not os.path.exists(path / MANIFEST_FILE):
            continue
        try:
            beside = _read_manifest(path)
        except ProfileError:
            continue  # the server says so when it starts; it is not this profile's fault
        check_same_model(profile, beside.name, beside.base_model)
        read += 1
        if beside.base_model.fingerprint is not None or read == _MOST_COMPARED:
            return


def _read_manifest(folder: Path) -> ProfileManifest:
    data = read_bytes(folder, MANIFEST_FILE, MAX_JSON_BYTES)
    return parse_manifest(ProfileManifest, data, f"{folder.name}/{MANIFEST_FILE}", versions=FORMAT_VERSIONS)


def _specs(manifest: ProfileManifest) -> dict[str, TensorSpec]:
    size = manifest.base_model.hidden_size
    if manifest.kind == "coarse":
        return {f"layers.{layer}.vector": TensorSpec("F32", (size,)) for layer in manifest.layers}
    return {
        f"layers.{layer}.{part}": TensorSpec("F32", (None, size))
        for layer in manifest.layers
        for part in ("centroids", "vectors")
    }


def _layer(arrays: dict[str, Float32], layer: int, manifest: ProfileManifest) -> Layer:
    if manifest.kind == "coarse":
        return CoarseLayer(arrays[f"layers.{layer}.vector"])
    centroids, vectors = arrays[f"layers.{layer}.centroids"], arrays[f"layers.{layer}.vectors"]
    if centroids.shape != vectors.shape:
        raise FormatError(
            f"layer {layer}: has {centroids.shape[0]} centroids and {vectors.shape[0]} vectors; a concept needs both"
        )
    return FineLayer(centroids, vectors)
