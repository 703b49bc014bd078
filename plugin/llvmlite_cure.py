"""Keeps llvmlite, numba's compiler, from stopping vLLM's CPU workers at their start.

vLLM 0.32 looks through the globals of every loaded module for Triton kernels (vllm/triton_utils/dispatcher.py:
_rebind_kernels) and reads `vars(value)` of all that has a `__dict__`. llvmlite's handle on its native library takes any
name for one of its functions, `__dict__` too, and what it answers is no dictionary: the worker dies with
"'_lib_fn_wrapper' object has no attribute 'get'". No function of a native library is called `__so__`.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

__all__ = ["cure"]


def cure() -> None:
    """Let llvmlite's handle, where it is loaded, deny names that begin with two underscores. Safe to call again."""
    handle = getattr(sys.modules.get("llvmlite.binding.ffi"), "_lib_wrapper", None)
    look_up = getattr(handle, "__getattr__", None)
    if handle is None or look_up is None or hasattr(look_up, "__wrapped__"):
        return

    @functools.wraps(look_up)
    def deny_special_names(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return look_up(self, name)

    handle.__getattr__ = deny_special_names
