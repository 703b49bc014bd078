"""numba's `njit`, which turns a plain loop over arrays into machine code. vLLM brings numba along.

llvmlite, below numba, takes every name that is looked up on its library for a symbol of it, `__dict__` too. vLLM's CPU
worker (vllm/triton_utils/dispatcher.py, 0.32) asks everything in every module for its `__dict__` when it starts, and
ends on what it gets there. So names that Python keeps for itself are no symbols from here on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from llvmlite.binding import ffi

__all__ = ["njit"]

F = TypeVar("F", bound=Callable[..., Any])


def njit(**options: Any) -> Callable[[F], F]:
    """`numba.njit`, kept on disk once it was compiled."""
    compiled: Callable[[F], F] = numba.njit(cache=True, **options)
    return compiled


def _keep_python_names_from(library: type) -> None:
    original = library.__getattr__  # type: ignore[attr-defined]

    def symbol(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return original(self, name)

    library.__getattr__ = symbol  # type: ignore[attr-defined]


_keep_python_names_from(type(ffi.lib))
