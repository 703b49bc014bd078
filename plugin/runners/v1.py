"""Model runner V1 (the CPU's, and the GPU's for features that V2 lacks): sees the final batch of each step.

Leans on vllm/v1/worker/gpu_model_runner.py: GPUModelRunner._prepare_inputs (0.29 to 0.32), after which, and not
before, the order of the batch is final; and its _dummy_run, which does not pass through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..compat.wrapping import wrap
from ..model.arming import tables_of
from ..model.tables import SteeringTables
from ..requests.kv import WIRE_KEY
from ..requests.request import Steering
from ..steps.batch import Ints
from ..steps.decisions import SteeredRequest
from . import concepts, lost

__all__ = ["on_step", "steer_step"]

Listener = Callable[[Any, Any, Ints], None]
"""Told the runner, its SchedulerOutput and how many tokens of each request are in the step: int [N]."""

_listeners: list[Listener] = []

_BATCH = "trimtab_batch"
"""The attribute of a model runner that holds the requests of its last step."""


def on_step(listener: Listener) -> None:
    """Let `listener` be told of every step, once its batch is final. Safe to call again with the same one."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    if listener not in _listeners:
        _listeners.append(listener)
    wrap(GPUModelRunner, "_prepare_inputs", _prepare_inputs)
    wrap(GPUModelRunner, "_dummy_run", _dummy_run)
    lost.watch(GPUModelRunner)
    concepts.watch(GPUModelRunner)


def _prepare_inputs(
    original: Callable[..., Any], self: Any, scheduler_output: Any, scheduled: Ints, *args: Any, **kwargs: Any
) -> Any:
    prepared = original(self, scheduler_output, scheduled, *args, **kwargs)
    for listen in _listeners:
        listen(self, scheduler_output, scheduled)
    return prepared


def _dummy_run(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Steer no dummy run. An idle data-parallel rank does them between steps: the entries of the last step would act
    again, and its gates decide once more, over what the dummy tokens hold."""
    tables = tables_of(self.get_model())
    if tables is not None:
        tables.tokens.clear()
    return original(self, *args, **kwargs)


class _Batch(NamedTuple):
    """The requests of a step, kept for the steps that have the same ones, which most do."""

    tables: SteeringTables
    names: list[str]
    requests: tuple[SteeredRequest | None, ...]
    steered: bool


def steer_step(runner: Any, scheduler_output: Any, scheduled: Ints) -> None:
    """Set the entries of a step, where the runner's model is armed.

    Runs in every step of every armed engine, and so does as little as it can where nothing has changed.
    """
    names, batch = runner.input_batch.req_ids, getattr(runner, _BATCH, None)
    # A request that came with this step may have the name of one that has ended.
    if batch is None or scheduler_output.scheduled_new_reqs or batch.names != names:
        tables = tables_of(runner.get_model())
        if tables is None:
            return
        requests = tuple(_steered(tables, name, runner.requests[name]) for name in names)
        batch = _Batch(tables, names[:], requests, any(requests))
        setattr(runner, _BATCH, batch)
    elif not batch.steered:
        return  # and the entries were cleared when these requests came together
    batch.tables.step(batch.requests, runner.input_batch.num_computed_tokens_cpu[: len(names)], scheduled)


def _steered(tables: SteeringTables, name: str, request: Any) -> SteeredRequest | None:
    """A request as we hold it, on the runner's own record of it, which stays through preemption and ends with it."""
    try:
        held: SteeredRequest | None = request.trimtab
    except AttributeError:
        params = request.sampling_params  # None for pooling requests
        wire = params.extra_args.get(WIRE_KEY) if params is not None and params.extra_args else None
        held = request.trimtab = None if wire is None else tables.take(Steering.of_wire(wire), name)
    return held
