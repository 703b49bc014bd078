"""Before a server answers: every worker, on every node, is armed with exactly the profiles that the front end resolves.

A worker that is not armed, because its node was started without trimtab or with another folder, would serve steered
requests unsteered and say nothing.

Leans on vllm/v1/worker/worker_base.py: a method of WorkerBase can be called by `collective_rpc` (0.29 to 0.32).
"""

from __future__ import annotations

from typing import Any

from .errors import StartupError

__all__ = ["check_workers", "install"]

_METHOD = "trimtab_check"


def install() -> None:
    """Give workers the method that `check_workers` calls. Safe to call again."""
    from vllm.v1.worker.worker_base import WorkerBase

    setattr(WorkerBase, _METHOD, _check)


async def check_workers(engine_client: Any, digest: str) -> None:
    """Ask every worker which profiles it is armed with.

    Raises:
        Exception: whatever a worker raises; without the plugin it does not know the question.
    """
    await engine_client.collective_rpc(_METHOD, args=(digest,))


def _check(worker: Any, digest: str) -> None:
    from .wrapper import tables_of

    tables = tables_of(worker.get_model())
    if tables is None or tables.registry_digest != digest:
        found = "no profiles" if tables is None else "other profiles"
        raise StartupError(
            f"a worker is armed with {found}: start every node with serve.py and the same --steering-profiles"
        )
