"""Why a request was refused, in one of a few words, for whoever counts refusals."""

from __future__ import annotations

from collections.abc import Callable

from trimtab.vectors.errors import AlphaError, RequestError, UnknownProfileError

__all__ = ["MISPLACED", "REASONS", "observers", "reason_of", "tell"]

MISPLACED = "misplaced"
"""The field is where nothing reads it, or another key was meant to be the field."""

_BY_STATUS = {403: "policy", 413: "too_large", 503: "unavailable"}
_EXPERIMENT = ("steering.experiment", "steering.unit", "steering.arm")

REASONS = ("unknown_profile", "alpha", "experiment", "malformed", MISPLACED, *_BY_STATUS.values())
"""All the words."""

observers: list[Callable[[str], None]] = []
"""Told the reason once per HTTP request that is refused because of steering."""


def reason_of(error: RequestError) -> str:
    """The word for an error of a request's field."""
    if isinstance(error, UnknownProfileError):
        return "unknown_profile"
    if error.status in _BY_STATUS:
        return _BY_STATUS[error.status]
    if isinstance(error, AlphaError) or error.param.endswith(".alpha"):
        return "alpha"
    return "experiment" if error.param.startswith(_EXPERIMENT) else "malformed"


def tell(reason: str) -> None:
    """Let the observers know."""
    for observer in observers:
        observer(reason)
