"""Steering vectors that other tools saved with torch.

Nothing is ever unpickled: torch's `weights_only` loader knows tensors and containers, and here one data class more.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trimtab.vectors import AlphaRange, ModelIdentity, Profile, SteeringVector
from trimtab.vectors.manifest import Positions, Provenance

from ..errors import DataError, SettingError

_STEERING_VECTORS = "steering_vectors.steering_vector.SteeringVector"


class _TheirSteeringVector:
    """Stands in for the data class of the package steering-vectors while its file is read."""

    layer_activations: Any
    layer_type: Any


def read_pt(path: Path) -> dict[int, SteeringVector]:
    """Vectors by layer, from a `.pt` file of one of two forms.

    - a dict {layer: tensor [D]}, the layer an integer (or its digits), 0-based, after that decoder block;
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
    return {vector.layer: vector for vector in (_vector(path, layer, tensor) for layer, tensor in content.items())}


def _vector(path: Path, layer: object, tensor: object) -> SteeringVector:
    number = int(layer) if isinstance(layer, str) and layer.isdecimal() else layer
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise DataError(f"{path}: has the key {layer!r}; expected layers, 0-based integers")
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        raise DataError(
            f"{path}: layer {number} holds a {type(tensor).__name__}; expected a tensor of floating numbers"
        )
    values = tensor.detach().to(torch.float32)
    if values.dim() == 2 and values.shape[0] == 1:
        values = values[0]
    if values.dim() != 1 or not torch.isfinite(values).all():
        raise DataError(f"{path}: layer {number} has shape {list(tensor.shape)} or is not finite; expected finite [D]")
    return SteeringVector(number, values.numpy().astype(np.float32))


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
