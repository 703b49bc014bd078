"""Steering vectors that other tools saved, as profiles; those saved with torch are read here.

Nothing is ever unpickled: torch's `weights_only` loader knows tensors and containers, and here one data class more.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch

from trimtab.vectors import AlphaRange, ModelIdentity, Profile, SteeringVector, read_gguf
from trimtab.vectors.errors import FormatError, IntegrityError
from trimtab.vectors.imports import ENDINGS, Format, by_layer, read_npz, read_safetensors
from trimtab.vectors.manifest import Positions, Provenance

from ..errors import DataError, SettingError

_STEERING_VECTORS = "steering_vectors.steering_vector.SteeringVector"


class _TheirSteeringVector:
    """Stands in for the data class of the package steering-vectors while its file is read."""

    layer_activations: Any
    layer_type: Any


def read_pt(path: Path) -> dict[int, SteeringVector]:
    """Vectors by layer, from a `.pt` file of one of two forms.

    - a dict {layer: tensor [D]}, the layer 0-based, after that decoder block, as an integer or a name such as
      `model.layers.3` (see `trimtab.vectors.imports.layer_of`);
    - a `SteeringVector` of the package steering-vectors; its `decoder_block` layers are 0-based block outputs, as ours.

    Tensors of shape [1, D] are taken as [D]; every floating dtype becomes float32.

    Raises:
        DataError: unreadable, anything else than these two, code in the file, another layer type, no vector, or a
            number that is not finite.
    """
    try:
        with torch.serialization.safe_globals([(_TheirSteeringVector, _STEERING_VECTORS)]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise DataError(
            f"{path}: is no .pt file of plain tensors; expected {{layer: tensor}} or a steering-vectors SteeringVector"
        ) from error
    if isinstance(content, _TheirSteeringVector):
        kind = getattr(content, "layer_type", "decoder_block")
        if kind != "decoder_block":
            raise DataError(
                f"{path}: steers {kind!r}; only vectors for whole decoder blocks ('decoder_block') can be had"
            )
        content = getattr(content, "layer_activations", None)
    if not isinstance(content, Mapping) or not content:
        raise DataError(
            f"{path}: holds a {type(content).__name__}; expected a dict {{layer: tensor}} that is not empty"
        )
    try:
        return by_layer(((key, _array(path, key, tensor)) for key, tensor in content.items()), path.name)
    except (FormatError, IntegrityError) as error:
        raise DataError(f"{path.parent}/{error}") from error


def _array(path: Path, key: object, tensor: object) -> npt.NDArray[np.float32]:
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        raise DataError(f"{path}: {key!r} holds a {type(tensor).__name__}; expected a tensor of floating numbers")
    return tensor.detach().to(torch.float32).numpy()


def read_foreign(
    path: Path, format: Format | None = None, families: Collection[str] | None = None
) -> dict[int, SteeringVector]:
    """Vectors by layer from another tool's file. format: None goes by the file's ending.

    families: of the model that they are meant for; a file that names another family is refused, see `read_gguf`.

    Raises:
        DataError: an ending that says nothing, or as `read_pt`.
        FormatError, IntegrityError, ModelMismatchError: as the reader of the format.
    """
    found = format or ENDINGS.get(path.suffix.lower())
    if found is None:
        raise DataError(f"{path}: its ending says nothing; give --format, one of {', '.join(get_args(Format))}")
    if found == "gguf":
        return read_gguf(path, families)
    return {"npz": read_npz, "pt": read_pt, "safetensors": read_safetensors}[found](path)


def imported_profile(
    name: str,
    vectors: Mapping[int, SteeringVector],
    model: ModelIdentity,
    *,
    source: str,
    layers: Sequence[int] | None = None,
    positions: Positions = "all",
    alpha: AlphaRange | None = None,
    description: str = "",
) -> Profile:
    """A coarse profile of vectors that another tool made. layers: those to keep; None keeps all.

    Other tools do not say which weights their vectors were made for, so neither does the profile: it fits every model
    of this architecture and shape.

    Raises:
        SettingError: a layer that the file does not have.
        FormatError: vectors of a size, or at a layer, that the model does not have.
    """
    kept = sorted(vectors if layers is None else set(layers))
    if missing := [layer for layer in kept if layer not in vectors]:
        there = ", ".join(map(str, sorted(vectors)))
        raise SettingError(f"{source}: has no vector for layer {missing[0]}; it has the layers {there}")
    return Profile.coarse(
        name,
        [vectors[layer] for layer in kept],
        model=model.model_copy(update={"fingerprint": None}),
        description=description or f"imported from {source}",
        positions=positions,
        alpha=alpha,
        provenance=Provenance(source=source, method="imported"),
    )
