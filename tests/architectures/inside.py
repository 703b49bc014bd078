"""Inside the engine's process: what was armed, and what vLLM's own model gives with a vector added by a hook.

The hooks are for models that vLLM and transformers do not compute alike by themselves; eager engines only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["Inside"]


class Inside:
    """Public methods are the commands. See `tests.engine.host.Host.inside`."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._hook: Any = None

    def facts(self) -> dict[str, Any]:
        """The path of the decoder layers, their classes, vLLM's class of the model."""

        def look(model: Any) -> dict[str, Any]:
            layers = self._layers(model)
            (path,) = [name for name, module in model.named_modules() if module is layers]
            kinds = {type(layer).__name__.removeprefix("Armed") for layer in layers}
            return {"path": path, "layers": sorted(kinds), "model": type(model).__name__}

        return dict(self._llm.apply_model(look)[0])

    def small_weights(self) -> list[list[float]]:
        """Of each decoder layer, the sum of every weight that is a vector: norms and biases."""

        def look(model: Any) -> list[list[float]]:
            return [sums_of(layer) for layer in self._layers(model)]

        return list(self._llm.apply_model(look)[0])

    def hook(self, layer: int, vector: Sequence[float] | None) -> None:
        """Add a vector to what a layer returns, at every position; None takes it away again."""
        if self._hook is not None:
            self._hook.remove()
        if vector is None:
            self._hook = None
            return
        added = torch.tensor(vector)

        def add(module: Any, inputs: Any, output: Any) -> Any:
            return output + added if isinstance(output, torch.Tensor) else (output[0] + added, *output[1:])

        def put(model: Any) -> None:
            self._hook = self._layers(model)[layer].register_forward_hook(add)

        self._llm.apply_model(put)

    def _layers(self, model: Any) -> Any:
        from trimtab.plugin.model.arming import decoder_layers

        return decoder_layers(model, self._llm.llm_engine.vllm_config)


def sums_of(layer: torch.nn.Module) -> list[float]:
    """The sum of each of its own one-dimensional parameters."""
    return sorted(float(weight.double().sum()) for weight in layer.parameters() if weight.dim() == 1)
