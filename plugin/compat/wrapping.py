"""Puts a function of ours around one of vLLM's, once.

For places that vLLM has no official way into; each use has a row in `seams`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["is_wrapped", "wrap"]

_MARK = "trimtab_wrapped"
"""An attribute of each function that stands around one of vLLM's. Whoever wraps ours with functools.wraps copies it."""


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Let every call of `owner.name` go to `around(original, *args, **kwargs)`. Safe to call again.

    Args:
        owner: a class or a module. name: of a function in it.
        around: calls `original`, and returns what the caller gets.

    Raises:
        AttributeError: vLLM has renamed the function.
    """
    original = getattr(owner, name)
    if is_wrapped(original):
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(wrapped, _MARK, True)
    setattr(owner, name, wrapped)


def is_wrapped(function: object) -> bool:
    """Whether `wrap` has been here."""
    return hasattr(function, _MARK)
