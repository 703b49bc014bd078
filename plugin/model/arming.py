"""Arms a model: chosen decoder layers get a table and an addition after their own forward.

After vLLM has built the model, `layers` finds its decoder layers, whatever its class, and the class of each armed layer
is changed to a subclass that calls the layer's own `forward` and adds the delta to `hidden`, which is right for every
form that a layer returns (see `forms`). Parameter names, weight loading and torch.compile stay as they are, and layers
that no profile uses stay as vLLM made them. `engine` decides which models are armed, and `probe` that what was armed
adds.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from vllm.model_executor.models.utils import PPMissingLayer

from trimtab.vectors import Profile

from ..compat.features import check_features
from ..compat.versions import check_vllm, installed_vllm
from ..config import SteeringConfig, check_layers, open_registry
from ..errors import StartupError
from ..requests.dose import addition, largest_addition
from .forms import add, parts
from .layers import find_layers
from .tables import LayerTable, SteeringTables

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["arm", "decoder_layers", "layers_of", "load", "most_tokens", "tables_of"]

logger = logging.getLogger("vllm.trimtab")  # below vLLM's logger, which has the handlers

_TABLES = "trimtab"
_LAYERS = "trimtab_layers"
"""The attribute of a model that holds its decoder layers by their numbers, those of this pipeline rank. They are found
once: a drafter that is built later registers caches of its own."""
_ARMED = "Armed"


def tables_of(model: nn.Module) -> SteeringTables | None:
    """The tables of an armed model, None for any other."""
    found = getattr(model, _TABLES, None)
    return found if isinstance(found, SteeringTables) else None


def arm(model: nn.Module, vllm_config: VllmConfig) -> None:
    """Give the model its tables, load the profiles into them and arm the layers.

    Raises:
        StartupError, ProfileError: the engine must not start like this; the message says why.
    """
    config = SteeringConfig.of(vllm_config)
    if config is None:
        return
    check_vllm(installed_vllm())
    check_features(vllm_config)
    registry = open_registry(config, vllm_config)
    layers = decoder_layers(model, vllm_config)
    check_layers(config.rows, len(layers))
    dtype = vllm_config.model_config.dtype
    assert isinstance(dtype, torch.dtype)  # vLLM has resolved "auto" by now
    tables = SteeringTables(
        config.rows,
        config.slots,
        vllm_config.model_config.get_hidden_size(),
        tokens=most_tokens(vllm_config),
        requests=vllm_config.scheduler_config.max_num_seqs,
        here=[layer for layer, module in enumerate(layers) if not isinstance(module, PPMissingLayer)],
        registry_digest=config.digest,
    )
    if tables.tokens.entries.is_meta:
        raise StartupError(
            "this --load-format builds the model without memory for the steering tables; use safetensors"
        )
    for profile in registry.values():
        load(tables, profile, dtype)
    for layer, table in tables.layers.items():
        _arm_layer(layers[layer], table)
    setattr(model, _TABLES, tables)
    for layer, table in tables.layers.items():
        logger.info(
            "trimtab: layer %d: %d rows of %d x 4 bytes, %.1f MiB", layer, *table.rows.shape, table.rows.nbytes / 2**20
        )
    logger.info("trimtab: %d profiles, %.1f MiB of rows", len(registry), tables.nbytes / 2**20)


def decoder_layers(model: nn.Module, vllm_config: VllmConfig) -> nn.ModuleList:
    """Those of the text model, armed or not, by their numbers. Raises a StartupError where they cannot be told."""
    registered = vllm_config.compilation_config.static_forward_context.values()
    layers = find_layers(model, registered, vllm_config.model_config.get_total_num_hidden_layers())
    here = {number: layer for number, layer in enumerate(layers) if not isinstance(layer, PPMissingLayer)}
    setattr(model, _LAYERS, here)
    return layers


def layers_of(model: nn.Module) -> dict[int, nn.Module]:
    """The decoder layers of this rank of a model that was armed, for steering or for capture; {} of any other."""
    found: dict[int, nn.Module] = getattr(model, _LAYERS, {})
    return found


def _arm_layer(layer: nn.Module, table: LayerTable) -> None:
    if "forward" in vars(layer):
        raise StartupError(
            "something has put a forward of its own on the model's layers (weight offloading does), which would hide "
            "the addition; start without it, or without profiles"
        )
    layer.trimtab_table = table
    base: Any = type(layer)
    layer.__class__ = _armed_class(base)


@functools.cache
def _armed_class(base: Any) -> type[nn.Module]:
    class Armed(base):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            stream = parts(out)
            if stream is None:
                return out  # the probe refuses it, in words that torch.compile would lose
            return add(out, self.trimtab_table(*stream))

    Armed.__name__ = Armed.__qualname__ = _ARMED + base.__name__
    return Armed


def most_tokens(vllm_config: VllmConfig) -> int:
    """Rows of the largest batch, padding included."""
    captured = vllm_config.compilation_config.max_cudagraph_capture_size or 0
    return max(vllm_config.scheduler_config.max_num_batched_tokens, captured)


def load(tables: SteeringTables, profile: Profile, dtype: torch.dtype, keep: Collection[str] | None = None) -> None:
    """`SteeringTables.load`, for a profile whose addition is finite in the stream's dtype.

    Of several profiles, admission bounds the sum.

    Raises:
        StartupError: it may add too much, or as `SteeringTables.load`.
    """
    largest = addition(profile, profile.manifest.alpha.largest)
    if largest > largest_addition(dtype):
        raise StartupError(f"profile {profile.name!r} may add {largest:g}, too much for {dtype}; lower its alpha range")
    tables.load(profile, keep)
