"""Model runner V2: through the model's own `get_model_state_cls`, an official seam.

Leans on vllm/v1/worker/gpu/model_states: ModelState.add_request, remove_request, prepare_inputs (0.29 to 0.32).
`prepare_inputs` runs outside the compiled graph on every step, dummy ones included; those carry made-up request ids,
which have no steering. A preempted request is removed and comes back as a new one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from torch import nn

from .kv import WIRE_KEY
from .request import Steering

__all__ = ["steered_model_state"]


def steered_model_state(model: nn.Module, base: type[nn.Module]) -> type:
    """A subclass of the state class that vLLM would give to `model` were it an instance of `base`."""
    return _with_steering(_plain_state_cls(model, base))


def _plain_state_cls(model: Any, base: Any) -> type:
    if hasattr(base, "get_model_state_cls"):
        plain: type = base.get_model_state_cls(model)
        return plain
    from vllm.config import get_current_vllm_config
    from vllm.v1.worker.gpu.model_states import resolve_model_state_cls

    plain = resolve_model_state_cls(get_current_vllm_config(), _Unwrapped(model))  # type: ignore[arg-type]
    return plain


class _Unwrapped:
    """Shows a model without the attribute that would send vLLM back here."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def modules(self) -> Iterator[nn.Module]:
        return self._model.modules()


@functools.cache
def _with_steering(base: type) -> type:
    class SteeredModelState(base):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, model: nn.Module, *args: Any, **kwargs: Any) -> None:
            from .wrapper import tables_of

            super().__init__(vllm_config, model, *args, **kwargs)
            self._tables = tables_of(model)
            self._steerings: dict[str, Steering] = {}

        def add_request(self, req_index: int, new_req_data: Any) -> None:
            super().add_request(req_index, new_req_data)
            params = new_req_data.sampling_params
            wire = params.extra_args.get(WIRE_KEY) if params is not None and params.extra_args else None
            if wire is not None:
                self._steerings[new_req_data.req_id] = Steering.of_wire(wire)

        def remove_request(self, req_id: str) -> None:
            super().remove_request(req_id)
            self._steerings.pop(req_id, None)

        def prepare_inputs(self, input_batch: Any, req_states: Any) -> Any:
            if self._tables is not None:
                n = input_batch.num_reqs
                steerings = [self._steerings.get(req_id) for req_id in input_batch.req_ids[:n]]
                computed, scheduled = input_batch.num_computed_tokens_np[:n], input_batch.num_scheduled_tokens[:n]
                self._tables.tokens.fill(steerings, self._tables.slots, computed, scheduled)
            return super().prepare_inputs(input_batch, req_states)

    SteeredModelState.__name__ = SteeredModelState.__qualname__ = f"Steered{base.__name__}"
    return SteeredModelState
