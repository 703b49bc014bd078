"""Model runner V2: through the model's own `get_model_state_cls`, an official seam.

Leans on vllm/v1/worker/gpu/model_states: ModelState.add_request, remove_request, prepare_inputs (0.29 to 0.32).
`prepare_inputs` runs outside the compiled graph on every step, dummy ones included; those carry made-up request ids,
which have no steering. A preempted request is removed and comes back as a new one; that it was preempted, and what has
ended for good, only vllm/v1/worker/gpu/model_runner.py: GPUModelRunner.finish_requests is told (0.29 to 0.32).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn

from ..compat.wrapping import wrap
from ..model.arming import tables_of
from ..model.tables import SteeringTables
from ..requests.kv import WIRE_KEY
from ..requests.request import Steering
from ..steps.decisions import SteeredRequest
from . import concepts, lost

__all__ = ["steered_model_state"]


def steered_model_state(model: nn.Module) -> type:
    """A subclass of the state class that vLLM would give to `model`, for a `get_model_state_cls` of its own."""
    return _with_steering(_plain_state_cls(model))


def _plain_state_cls(model: Any) -> type:
    if hasattr(type(model), "get_model_state_cls"):
        plain: type = type(model).get_model_state_cls(model)
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
    _tell_what_ends()

    class SteeredModelState(base):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, model: nn.Module, *args: Any, **kwargs: Any) -> None:
            super().__init__(vllm_config, model, *args, **kwargs)
            self._requests = _Requests(tables_of(model))

        def add_request(self, req_index: int, new_req_data: Any) -> None:
            super().add_request(req_index, new_req_data)
            params = new_req_data.sampling_params
            wire = params.extra_args.get(WIRE_KEY) if params is not None and params.extra_args else None
            self._requests.add(new_req_data.req_id, wire)

        def remove_request(self, req_id: str) -> None:
            super().remove_request(req_id)
            self._requests.remove(req_id)

        def trimtab_ends(self, finished: Iterable[str], preempted: Iterable[str]) -> None:
            self._requests.end(finished, preempted)

        def prepare_inputs(self, input_batch: Any, req_states: Any) -> Any:
            n = input_batch.num_reqs
            computed, scheduled = input_batch.num_computed_tokens_np[:n], input_batch.num_scheduled_tokens[:n]
            self._requests.step(input_batch.req_ids[:n], computed, scheduled)
            return super().prepare_inputs(input_batch, req_states)

    SteeredModelState.__name__ = SteeredModelState.__qualname__ = f"Steered{base.__name__}"
    return SteeredModelState


class _Requests:
    """The steered requests of a worker by id. A preempted one waits for its return with the decisions of its gates."""

    def __init__(self, tables: SteeringTables | None) -> None:
        self._tables = tables
        self._running: dict[str, SteeredRequest] = {}
        self._waiting: dict[str, SteeredRequest] = {}
        self._names: list[str] = []
        self._batch: tuple[SteeredRequest | None, ...] = ()

    def add(self, req_id: str, wire: Any) -> None:
        if wire is not None and self._tables is not None:
            if (held := self._waiting.pop(req_id, None)) is None:
                held = self._tables.take(Steering.of_wire(wire), req_id)
            self._running[req_id] = held
        self._names = []

    def remove(self, req_id: str) -> None:
        self._running.pop(req_id, None)
        self._names = []

    def end(self, finished: Iterable[str], preempted: Iterable[str]) -> None:
        self._waiting.update({req_id: self._running[req_id] for req_id in preempted if req_id in self._running})
        for req_id in finished:
            self._waiting.pop(req_id, None)

    def step(self, req_ids: list[str], computed: Any, scheduled: Any) -> None:
        if self._tables is None:
            return
        if req_ids != self._names:
            self._names, self._batch = req_ids, tuple(self._running.get(req_id) for req_id in req_ids)
        # The same object as long as the requests are the same, which most steps are.
        self._tables.step(self._batch, computed, scheduled)


def _tell_what_ends() -> None:
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    wrap(GPUModelRunner, "finish_requests", _finish_requests)
    lost.watch(GPUModelRunner)
    concepts.watch(GPUModelRunner)


def _finish_requests(original: Callable[..., None], self: Any, scheduler_output: Any) -> None:
    if hasattr(self.model_state, "trimtab_ends"):
        self.model_state.trimtab_ends(scheduler_output.finished_req_ids, scheduler_output.preempted_req_ids or ())
    original(self, scheduler_output)
