"""Before anything is served: every worker is armed with exactly the profiles that requests are resolved with, and adds.

A worker that is not armed, because its node was started without trimtab or with another folder, would serve steered
requests unsteered and say nothing. Asked twice: by the engine, once its model is warm, which covers `LLM` too; and by
the HTTP front end, which knows what it resolves with and reaches engines that were started elsewhere.

Leans on vllm/v1/worker/worker_base.py: a method of WorkerBase can be called by `collective_rpc`, and on
vllm/v1/executor/abstract.py: Executor.compile_or_warm_up_model (0.29 to 0.32).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compat.wrapping import wrap
from ..config import SteeringConfig
from ..errors import StartupError
from ..model.arming import tables_of
from ..model.probe import check_layers_add

__all__ = ["check_workers", "install"]

_METHOD = "trimtab_check"


def install() -> None:
    """Give workers the method that asks, and let the engine ask it. Safe to call again."""
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.worker.worker_base import WorkerBase

    setattr(WorkerBase, _METHOD, _check)
    wrap(Executor, "compile_or_warm_up_model", _warm_up)


def _warm_up(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    found = original(self, *args, **kwargs)
    config = SteeringConfig.of(self.vllm_config)
    if config is not None:
        self.collective_rpc(_METHOD, args=(config.digest, True))
    return found


async def check_workers(engine_client: Any, digest: str) -> None:
    """Ask every worker which profiles it is armed with.

    Raises:
        Exception: whatever a worker raises; without the plugin it does not know the question.
    """
    await engine_client.collective_rpc(_METHOD, args=(digest,))


def _check(worker: Any, digest: str, probe: bool = False) -> None:
    tables = tables_of(worker.get_model())
    if tables is None or tables.registry_digest != digest:
        found = "no profiles" if tables is None else "other profiles"
        raise StartupError(
            f"a worker is armed with {found}: start every node with trimtab-serve and the same --steering-profiles"
        )
    if probe:
        check_layers_add(worker.model_runner, tables)
