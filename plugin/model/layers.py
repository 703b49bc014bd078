"""Finds the decoder layers of whatever vLLM has built, from the caches that it has registered.

vLLM keeps every module that owns a KV cache or a state cache in one table, `compilation_config.static_forward_context`.
The decoder is the innermost list of modules that holds all of them, spread over its elements. Vision towers, resamplers
and Q-formers own no cache, so that they never qualify; a second decoder or an encoder with a cache leaves no such list,
and is refused.

Leans on vllm/model_executor/layers/attention_layer_base.py: AttentionLayerBase, and on
vllm/model_executor/models/utils.py: PPMissingLayer (0.29 to 0.32).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.models.utils import PPMissingLayer

from ..errors import StartupError

__all__ = ["find_layers"]


def find_layers(model: nn.Module, registered: Iterable[object], depth: int) -> nn.ModuleList:
    """The decoder layers of a model by their numbers, with stand-ins for those of other pipeline ranks.

    Args:
        registered: the modules in vLLM's `static_forward_context`; those that own no cache are passed over.
        depth: how many layers the text model has by its configuration.

    Raises:
        StartupError: there is no such list, or it is not `depth` different layers long; names the class and the reason.
    """
    owners = {id(module) for module in registered if isinstance(module, AttentionLayerBase)}
    if not owners:
        raise _refusal(model, "none of its modules owns a KV cache")
    outer: Any = model
    text = outer.get_language_model() if hasattr(outer, "get_language_model") else outer
    holding = [
        module for module in text.modules() if isinstance(module, nn.ModuleList) and _holds(module, owners, depth)
    ]
    # Modules come from the outside in, and of two lists that hold the same modules one lies in the other.
    if not holding:
        raise _refusal(
            model,
            "no list of layers holds every module that owns a KV cache (an encoder with a cache, or a second "
            "decoder, has a list of its own)",
        )
    layers = holding[-1]
    if len(layers) != depth:
        raise _refusal(model, f"its list of layers has {len(layers)} elements, and its configuration says {depth}")
    here = [layer for layer in layers if not isinstance(layer, PPMissingLayer)]
    if len({id(layer) for layer in here}) != len(here):
        raise _refusal(model, "the same layer stands in its list of layers more than once")
    return layers


def _holds(layers: nn.ModuleList, owners: set[int], depth: int) -> bool:
    """Whether all owners lie in a list, and not in one element alone, as they do in a list of whole models."""
    inside = [{id(module) for module in layer.modules()} & owners for layer in layers]
    others = sum(isinstance(layer, PPMissingLayer) for layer in layers)
    spread = sum(map(bool, inside)) + others
    return set().union(*inside) == owners and (spread > 1 or len(layers) == depth == 1)


def _refusal(model: nn.Module, reason: str) -> StartupError:
    return StartupError(
        f"trimtab cannot find the decoder layers of a {type(model).__name__}: {reason}. Start without profiles and "
        "without capture to serve it unsteered"
    )
