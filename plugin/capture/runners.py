"""Captured layers, and how both model runners tell them what a step is made of.

The class of a captured layer is changed after the model was built, as `arming` does to armed ones and on top of it, so
that what is captured is the stream that the next layer reads.

Leans on what `runners.v1` and `runners.v2` lean on, and on vllm/v1/worker/worker_base.py: a method of WorkerBase can
be called by `collective_rpc` (0.29 to 0.32).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from ..compat.features import check_features
from ..compat.versions import check_vllm, installed_vllm
from ..config import check_layers
from ..errors import StartupError
from ..model.arming import decoder_layers, most_tokens
from ..model.forms import parts
from ..steps.batch import Ints
from .kept import KeptStates, LayerBuffer, Taken
from .request import WIRE_KEY, CaptureConfig, check_capturable

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["arm", "capturing_state", "install", "rows_of"]

logger = logging.getLogger("vllm.trimtab")

_STATES = "trimtab_captured"
"""The attribute of a model that holds what is captured of it."""


def install() -> None:
    """Give workers the methods that hand out rows. Safe to call again."""
    from vllm.v1.worker.worker_base import WorkerBase

    for method in (trimtab_capture_take, trimtab_capture_release, trimtab_capture_kept):
        setattr(WorkerBase, method.__name__, method)


def trimtab_capture_take(worker: Any, keys: list[str]) -> dict[str, Taken]:
    return _rows(worker).take(keys)


def trimtab_capture_release(worker: Any, keys: list[str]) -> None:
    _rows(worker).release(keys)


def trimtab_capture_kept(worker: Any) -> dict[str, int]:
    return _rows(worker).kept()


def _rows(worker: Any) -> KeptStates:
    rows = rows_of(worker.get_model())
    if rows is None:
        raise StartupError("a worker was not started for capture: start every node with the same capture_args(…)")
    return rows


def rows_of(model: nn.Module) -> KeptStates | None:
    """What is captured of a model, None for one that was not started for it."""
    found = getattr(model, _STATES, None)
    return found if isinstance(found, KeptStates) else None


def arm(model: nn.Module, vllm_config: VllmConfig) -> None:
    """Let the chosen layers of the model copy what requests want of their output.

    Raises:
        StartupError: the engine must not start like this; the message says why.
    """
    from vllm.distributed import get_tensor_model_parallel_rank

    config = CaptureConfig.of(vllm_config)
    if config is None:
        return
    check_vllm(installed_vllm())
    check_features(vllm_config)
    check_capturable(vllm_config)
    layers = decoder_layers(model, vllm_config)
    check_layers(config.layers, len(layers))
    keeps = get_tensor_model_parallel_rank() == 0  # the stream is the same on all of them
    size = vllm_config.model_config.get_hidden_size()
    rows = KeptStates(config.layers, most_tokens(vllm_config), size, keeps)
    for number, buffer in rows.layers.items():
        if "forward" in vars(layers[number]):
            raise StartupError(
                "something has put a forward of its own on the model's layers (weight offloading does), which would "
                "hide the copy of their rows; start without it, or without capture"
            )
        layers[number].trimtab_rows = buffer
        base: Any = type(layers[number])
        layers[number].__class__ = _captured_class(base)
    setattr(model, _STATES, rows)
    logger.info("trimtab: rows of layers %s can be captured", ", ".join(map(str, config.layers)))


@functools.cache
def _captured_class(base: Any) -> type[nn.Module]:
    class Captured(base):  # type: ignore[misc]
        trimtab_rows: LayerBuffer

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            stream = parts(out)
            if stream is not None:  # the probe refuses everything else
                self.trimtab_rows(*stream)
            return out

    Captured.__name__ = Captured.__qualname__ = f"Captured{base.__name__}"
    return Captured


def capture_step(runner: Any, scheduler_output: Any, scheduled: Ints) -> None:
    """For model runner V1: say which rows of a step to copy, where the runner's model was started for it."""
    rows = rows_of(runner.get_model())
    if rows is not None:
        batch = runner.input_batch
        requests = [(name, _wire(runner.requests[name].sampling_params)) for name in batch.req_ids]
        rows.step(requests, batch.num_computed_tokens_cpu[: len(requests)], scheduled)


def capturing_state(model: nn.Module, base: type) -> type:
    """For model runner V2: `base`, told what to capture where the model was started for it."""
    return base if rows_of(model) is None else _capturing(base)


@functools.cache
def _capturing(base: type) -> type:
    class CapturingModelState(base):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, model: nn.Module, *args: Any, **kwargs: Any) -> None:
            super().__init__(vllm_config, model, *args, **kwargs)
            self._rows = rows_of(model)
            self._wires: dict[str, Mapping[str, Any]] = {}

        def add_request(self, req_index: int, new_req_data: Any) -> None:
            super().add_request(req_index, new_req_data)
            wire = _wire(new_req_data.sampling_params)
            if wire is not None:
                self._wires[new_req_data.req_id] = wire

        def remove_request(self, req_id: str) -> None:
            super().remove_request(req_id)
            self._wires.pop(req_id, None)

        def prepare_inputs(self, input_batch: Any, req_states: Any) -> Any:
            assert self._rows is not None
            n = input_batch.num_reqs
            requests = self._wanted(input_batch.req_ids[:n])
            self._rows.step(requests, input_batch.num_computed_tokens_np[:n], input_batch.num_scheduled_tokens[:n])
            return super().prepare_inputs(input_batch, req_states)

        def _wanted(self, names: Iterable[str]) -> list[tuple[str, Mapping[str, Any] | None]]:
            return [(name, self._wires.get(name)) for name in names]

    CapturingModelState.__name__ = CapturingModelState.__qualname__ = f"Capturing{base.__name__}"
    return CapturingModelState


def _wire(params: Any) -> Mapping[str, Any] | None:
    return params.extra_args.get(WIRE_KEY) if params is not None and params.extra_args else None
