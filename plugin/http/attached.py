"""A server of vLLM's routes is refused when ours are not among them.

The engine asks for trimtab in its configuration, and vLLM loads endpoint plugins by the environment variable
VLLM_PLUGINS, so one can come without the other: `vllm serve --additional-config …`, or a server of one's own that calls
vLLM's `build_app`. Such a server would drop `steering` on `/v1/messages` and others, and answer unsteered.

Leans on vllm/plugins/endpoint_plugins/interface.py: `init_endpoint_plugins_state`, which vLLM's app_state imports by
name and calls with the engine and the state of the application, in which `endpoint_plugins` lists what was attached
(0.29 to 0.32).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ..compat.wrapping import wrap
from ..config import PLUGIN_NAME, SteeringConfig
from ..errors import StartupError

__all__ = ["check_attached", "install"]

_APP_STATE = "vllm.entrypoints.launchers.api_server.app_state"


def install() -> None:
    """Let vLLM refuse a server without our routes before it listens. Safe to call again."""
    from vllm.plugins.endpoint_plugins import interface

    wrap(interface, "init_endpoint_plugins_state", _init)
    # Imported now, it would cost every `LLM` the modules of a server. Imported later, it finds the wrapped one.
    if (importer := sys.modules.get(_APP_STATE)) is not None:
        wrap(importer, "init_endpoint_plugins_state", _init)


def _init(original: Callable[..., Any], engine_client: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
    if engine_client is not None and SteeringConfig.of(engine_client.vllm_config) is not None:
        check_attached(state)
    return original(engine_client, state, *args, **kwargs)


def check_attached(state: Any) -> None:
    """Refuse an application of vLLM's that our endpoint plugin was not attached to.

    state: of the application. `vllm run-batch` has one without routes, and reads the field from its requests.

    Raises:
        StartupError: with the variable to set.
    """
    plugins = getattr(state, "endpoint_plugins", None)
    if plugins is not None and all(plugin.name != PLUGIN_NAME for plugin in plugins):
        raise StartupError(
            "the engine steers, and this server lacks trimtab's routes, so some of its routes would ignore `steering`; "
            f"start it with trimtab-serve, or name {PLUGIN_NAME!r} in VLLM_PLUGINS, beside every other plugin that it "
            "needs"
        )
