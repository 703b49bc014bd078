"""trimtab.plugin: steers vLLM per request. The only folder of trimtab that imports vllm.

A request's way through it, one file a step:

    api         the HTTP door: the `steering` field, headers, discovery       (guard, metrics beside it)
    request     what was asked → a resolved `Steering`, or an error that names the field
    admission   the one place every request passes with its prompt tokenised
    positions   which positions of it are steered
    kv          which cached blocks a steered request may share
    batch       this step's token rows, the same for both model runners       (runner_v1, runner_v2)
    gates       what its gates decided for the whole answer
    tokens      the token rows on the device
    table       device rows of the loaded profiles
    wrapper     the armed layers
    op          the addition to the residual stream

Before the first request, `config` and `handshake` see to it that all processes serve the same profiles, and `probe`
that every armed layer adds.
Rows of the stream leave through `capture` (capture_request, capture_runners, capture_rows, capture_op, capture_folder).

Everything that leans on vLLM's internals is listed in `seams`.
This module stays light: vLLM loads it in every process and torch loads a neighbour of it at `import torch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import engine_args

__all__ = ["engine_args", "register"]


def register() -> None:
    """Entry point of `vllm.general_plugins`: called by vLLM in every process, possibly more than once."""
    from .capture import runners as capture_runners
    from .model import arming as wrapper
    from .requests import admission, kv
    from .runners import handshake

    wrapper.register_models()
    admission.install()
    kv.install()
    handshake.install()
    capture_runners.install()


def __getattr__(name: str) -> object:
    if name == "engine_args":
        from .config import engine_args

        return engine_args
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
