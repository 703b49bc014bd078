"""Before anything is served: every worker is armed with exactly the profiles that requests are resolved with, and adds.

A worker that is not armed, because its node was started without trimtab or with another folder, would serve steered
requests unsteered and say nothing. Asked twice: by the engine, once its model is warm, which covers `LLM` too; and by
the HTTP front end, which knows what it resolves with and reaches engines that were started elsewhere. The engine also
lets every worker measure what its layers return, and prove that what is armed adds.

Leans on vllm/v1/worker/worker_base.py: a method of WorkerBase can be called by `collective_rpc`, and on
vllm/v1/executor/abstract.py: Executor.compile_or_warm_up_model (0.29 to 0.32).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..asking import CAPTURE_KEY
from ..compat.wrapping import wrap
from ..config import SteeringConfig
from ..errors import StartupError
from ..model.arming import layers_of, tables_of
from ..model.dummy import DummyRuns
from ..model.forms import ReadsStream
from ..model.kinds import Kinds, class_name, measure, refusal
from ..model.probe import check_layers_add

__all__ = ["check_workers", "install"]

_KINDS = "trimtab_kinds"
"""The attribute of a model runner that holds what was measured of its layers."""


def install() -> None:
    """Give workers the methods that ask, and let the engine ask them. Safe to call again."""
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.worker.worker_base import WorkerBase

    for method in (trimtab_check, trimtab_measure, trimtab_prove):
        setattr(WorkerBase, method.__name__, method)
    wrap(Executor, "compile_or_warm_up_model", _warm_up)


def _warm_up(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    found = original(self, *args, **kwargs)
    config, additional = SteeringConfig.of(self.vllm_config), self.vllm_config.additional_config
    if config is not None:
        self.collective_rpc("trimtab_check", args=(config.digest,))
    if config is not None or (isinstance(additional, Mapping) and CAPTURE_KEY in additional):
        measured = self.collective_rpc("trimtab_measure")
        self.collective_rpc("trimtab_prove", args=(_together(measured),))
    return found


async def check_workers(engine_client: Any, digest: str) -> None:
    """Ask every worker which profiles it is armed with.

    Raises:
        Exception: whatever a worker raises; without the plugin it does not know the question.
    """
    await engine_client.collective_rpc("trimtab_check", args=(digest,))


def trimtab_check(worker: Any, digest: str) -> None:
    tables = tables_of(worker.get_model())
    if tables is None or tables.registry_digest != digest:
        found = "no profiles" if tables is None else "other profiles"
        raise StartupError(
            f"a worker is armed with {found}: start every node with trimtab-serve and the same --steering-profiles"
        )


def trimtab_measure(worker: Any) -> dict[str, bool]:
    """What this worker can say of each class of layers that returns a pair: whether it is a sum."""
    runner = worker.model_runner
    # A rank of a pipeline that has the last states says it for the classes of the others.
    alone = runner.vllm_config.parallel_config.pipeline_parallel_size == 1
    layers = _used(worker.get_model()) if alone else layers_of(worker.get_model())
    kinds = measure(DummyRuns(runner), layers)
    setattr(runner, _KINDS, kinds)
    return {class_name(layers[n]): summed for n, summed in kinds.summed.items() if summed is not None}


def trimtab_prove(worker: Any, sums: Mapping[str, bool]) -> None:
    """Tell every armed layer what its residual is, and check that it adds. `sums`: by class, see `trimtab_measure`."""
    runner, model = worker.model_runner, worker.get_model()
    kinds: Kinds = getattr(runner, _KINDS)
    layers = _used(model)
    for number in kinds.pairs & layers.keys():
        summed = kinds.summed[number]
        if summed is None and (summed := sums.get(class_name(layers[number]))) is None:
            raise refusal(
                number,
                layers[number],
                "returns two values, and a pipeline rank without a layer of its class that sees the model's last "
                "states cannot tell whether they are summed",
            )
        for reader in _readers(layers[number]):
            reader.summed.fill_(int(summed))
    tables = tables_of(model)
    if tables is not None:
        check_layers_add(DummyRuns(runner), tables, layers, kinds)


def _used(model: Any) -> dict[int, Any]:
    """The layers whose stream something of ours reads, and those that count as armed, whether they are or not."""
    tables = tables_of(model)
    armed = () if tables is None else tables.layers
    return {number: layer for number, layer in layers_of(model).items() if number in armed or _readers(layer)}


def _readers(layer: Any) -> list[ReadsStream]:
    return [part for part in layer.children() if isinstance(part, ReadsStream)]


def _together(measured: Iterable[Mapping[str, bool] | None]) -> dict[str, bool]:
    return {name: summed for one in measured for name, summed in (one or {}).items()}
