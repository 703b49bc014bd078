"""A new version of a profile comes into every worker of a running engine, or none is told of it.

A front end calls `trimtab_stage` of all workers of all engines by `collective_rpc`. A worker loads the profile from its
own registry folder, because it may be on another machine, and raises unless it is the version that the front end has
verified: under data parallelism the caller is given the answers of the first engine alone, but every error.

Rows are used again only where no request needs them. Which requests there are, those in the queue included, is known to
the scheduler of each engine, so it adds their digests to the call on its way through.

Leans on vllm/v1/engine/core.py: EngineCore.collective_rpc, which hands the calls of all clients on to the workers, and
EngineCore.scheduler; on vllm/v1/core/sched/scheduler.py: Scheduler.requests; and on vllm/v1/worker/worker_base.py: a
method of WorkerBase can be called by `collective_rpc` (0.29 to 0.32).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trimtab.vectors import Registry

from ..compat.wrapping import wrap
from ..config import SteeringConfig, identity_of
from ..errors import StartupError
from ..model.arming import load, tables_of
from ..requests.kv import WIRE_KEY
from . import concepts

__all__ = ["HOLDS", "STAGE", "install"]

STAGE, HOLDS = "trimtab_stage", "trimtab_holds"
"""What front ends call."""


def install() -> None:
    """Give workers the two methods, and let engines say what their requests need. Safe to call again."""
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.worker.worker_base import WorkerBase

    for method in (trimtab_stage, trimtab_holds):
        setattr(WorkerBase, method.__name__, method)
    wrap(EngineCore, "collective_rpc", _rpc)


# The names are vLLM's: its clients hand some of them over by position.
def _rpc(
    original: Callable[..., Any],
    core: Any,
    method: Any,
    timeout: float | None = None,
    args: Sequence[Any] = (),
    kwargs: dict[str, Any] | None = None,
) -> Any:
    if method == STAGE:
        kwargs = {**(kwargs or {}), "needed": needed(core.scheduler.requests.values())}
    return original(core, method, timeout, tuple(args), kwargs)


def needed(requests: Any) -> list[str]:
    """The digests of the profiles of all of a scheduler's requests."""
    found: set[str] = set()
    for request in requests:
        params = request.sampling_params  # None for pooling requests
        wire = params.extra_args.get(WIRE_KEY, ()) if params is not None and params.extra_args else ()
        found.update(part["digest"] for part in wire)
    return sorted(found)


def trimtab_stage(worker: Any, name: str, content: str, keep: Sequence[str], needed: Sequence[str] = ()) -> None:
    """Load one version of a profile.

    content: its content digest. keep: digests that clients may name. needed: digests of the engine's requests.

    Raises:
        StartupError: this worker reads another version, it does not fit, or steering was not asked for.
        ProfileError: it does not load.
    """
    config, tables = SteeringConfig.of(worker.vllm_config), tables_of(worker.get_model())
    if config is None or tables is None:
        raise StartupError("a worker is armed with no profiles, so it can be given none; start it with trimtab-serve")
    profile = Registry.open_one(Path(config.profiles), name, identity_of(worker.vllm_config))
    if profile.content_digest != content:
        raise StartupError(
            f"a worker reads another version of profile {name!r} than its front end; give every node the same folder "
            "of profiles, and stage again when nothing writes to it"
        )
    if (counts := concepts.counts_of(worker.model_runner)) is not None:
        counts.read()  # of the profiles whose rows are used again
    load(tables, profile, worker.vllm_config.model_config.dtype, {*keep, *needed})


def trimtab_holds(worker: Any, digests: Sequence[str]) -> None:
    """Raises a StartupError unless this worker holds all of these versions."""
    tables = tables_of(worker.get_model())
    missing = [digest for digest in digests if tables is None or digest not in tables.slots]
    if missing:
        raise StartupError(
            f"a worker lacks the version sha256:{missing[0][:12]} of a profile, which this server may serve; restart "
            "the server"
        )
