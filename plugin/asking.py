"""Whether this process asked for trimtab. Until it does, an installed trimtab leaves vLLM as it is.

vLLM loads the plugin in every process of every engine, before any configuration is known. So an environment variable
says whether an engine will steer or capture: `engine_args` and `capture_args` set it, child processes inherit it, and
vLLM copies variables that begin with VLLM_ to other nodes (vllm/ray/ray_env.py).

One check acts without being asked: it refuses an engine whose configuration holds a key of ours while nothing of ours
is installed in the process, because that engine would serve every steered request unsteered.

Leans on vllm/config/vllm.py: VllmConfig.__post_init__. Imports the standard library only, because vLLM loads it in
every process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from .compat.wrapping import wrap

__all__ = ["CAPTURE_KEY", "STEERING_KEY", "SWITCH", "ask", "asked", "install_check", "when_asked"]

SWITCH = "VLLM_TRIMTAB"
"""The environment variable: "1" asks, unset or "0" does not."""

STEERING_KEY = "trimtab"
"""Where `additional_config` says with which profiles an engine steers."""

CAPTURE_KEY = "trimtab_capture"
"""Where `additional_config` says of which layers an engine captures states."""

logger = logging.getLogger("vllm.trimtab")

_waiting: list[Callable[[], None]] = []
_missing: str | None = f"this process did not ask for it; set {SWITCH}=1 in the environment of all of its processes"
"""Why nothing of ours is installed in this process; None once it is."""


def asked() -> bool:
    """Whether this process, or the one that started it, asked for trimtab."""
    return os.environ.get(SWITCH, "0") not in ("", "0")


def ask() -> None:
    """Ask, for this process and all that it starts. Safe to call again."""
    os.environ[SWITCH] = "1"
    while _waiting:
        _install(_waiting.pop())


def when_asked(install: Callable[[], None]) -> None:
    """Call `install` now where this process has asked, and else as soon as it does."""
    if asked():
        _install(install)
    else:
        _waiting[:] = [install]


def _install(install: Callable[[], None]) -> None:
    global _missing
    try:
        install()
    except Exception as error:
        # Other engines of this process must live. One that asks for steering is refused by `_check`, with this reason.
        _missing = f"{type(error).__name__}: {error}"
        logger.error("trimtab cannot steer or capture in this process: %s", _missing)
    else:
        _missing = None


def install_check() -> None:
    """Let vLLM refuse what it would serve unsteered. Safe to call again, and in any release of vLLM."""
    try:
        from vllm.config import VllmConfig

        wrap(VllmConfig, "__post_init__", _check)
    except (ImportError, AttributeError) as error:
        logger.debug("trimtab: this vLLM keeps its configuration elsewhere (%s)", error)


def _check(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    found = self.additional_config
    if _missing is not None and isinstance(found, Mapping) and not found.keys().isdisjoint((STEERING_KEY, CAPTURE_KEY)):
        from .errors import StartupError

        raise StartupError(
            f"the engine's additional_config asks for trimtab, which is not installed in this process: {_missing}"
        )
    original(self, *args, **kwargs)
