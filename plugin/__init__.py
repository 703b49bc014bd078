"""trimtab.plugin: steers vLLM per request. The only folder of trimtab that imports vllm.

A request's way through it, one module per step:

    http.doors           the HTTP doors: the routes and what each does, the field, what an answer says, discovery
    requests.fields      the field, read where vLLM's request classes become sampling parameters
    requests.model_names a profile in the model's name becomes the field
    requests.request     what was asked → a resolved `Steering`, or an error that names the field
    requests.admission   the one place every request passes with its prompt tokenised
    requests.positions   which positions of it are steered
    requests.kv          which cached blocks a steered request may share
    runners.v1, .v2      hand the requests of a step over, one module per model runner of vLLM
    steps                what acts on which token of this step, and what gates decided for a whole answer
    model.tables         the tensors of the loaded profiles on the device
    model.arming         the layers that add
    model.op             the addition to the residual stream

Models that this vLLM lacks are in `architectures`.

`engine` puts these together. Before the first request, `config` and `runners.handshake` see to it that all processes
serve the same profiles, and `model.probe` that every armed layer adds. States of the stream leave through `capture`.
Everything that leans on vLLM's internals is listed in `compat.seams`.

This module stays light: vLLM loads it in every process, and torch loads a neighbour of it at `import torch`. Whatever
is installed, an engine that does not ask for trimtab is plain vLLM; `asking` says how it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import engine_args

__all__ = ["endpoint_plugin", "engine_args", "register"]


def register() -> None:
    """Entry point of `vllm.general_plugins`: called by vLLM in every process, possibly more than once."""
    from . import asking

    asking.install_check()
    asking.when_asked(_install)


def _install() -> None:
    from . import engine

    engine.install()


def endpoint_plugin() -> Any:
    """Entry point of `vllm.endpoint_plugins`; vLLM loads it only when `VLLM_PLUGINS` names it."""
    from . import asking

    if not asking.asked():
        return _NoDoors()
    from .http import doors

    return doors.endpoint_plugin()


class _NoDoors:
    """An endpoint plugin that fits no server: vLLM skips it."""

    name = "trimtab"
    required_tasks = ()


def __getattr__(name: str) -> object:
    if name == "engine_args":
        from .config import engine_args

        return engine_args
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
