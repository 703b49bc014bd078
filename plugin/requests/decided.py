"""What an HTTP request gets is decided once, and its answer says so.

One HTTP request may pass admission several times: one completion of several prompts, a batch, the turns of a tool call.
All of them get what the first one got, and what the headers say, whatever an operator changes meanwhile.

Leans on asyncio: a task sees the record of the request that started it, because tasks copy their context. Without an
HTTP request around it (`LLM`, `vllm run-batch`) each pass decides for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from trimtab.vectors import Profile
from trimtab.vectors.asked import Asked

__all__ = ["Asks", "Chosen", "Decided", "Governed", "deciding", "once", "record"]

Asks = tuple[Asked, ...] | None
"""What a request says: None for nothing, () for "none", else what it asks for."""

Chosen = Sequence[tuple[Profile, float]]
"""Profiles with their strengths, in the order of the request; empty means unsteered."""


class Governed(tuple[tuple[Profile, float], ...]):
    """What is chosen by an access policy.

    added: how many of its parts, counted from the end, the server adds by itself. subject: who asked, or None. rule,
    outcome, reason: see `control.policy.decide`. mode: of the policy.
    """

    added: int = 0
    subject: str | None = None
    rule: str = ""
    outcome: str = ""
    reason: str = ""
    mode: str = ""


class Decided:
    """What one HTTP request asks for, and what it gets. Both are None until that is decided."""

    asked: Asks = None
    chosen: Chosen | None = None


_RECORD: ContextVar[Decided | None] = ContextVar("trimtab_decided", default=None)


@contextmanager
def deciding() -> Iterator[Decided]:
    """Keep a record of what is decided inside."""
    record = Decided()
    token = _RECORD.set(record)
    try:
        yield record
    finally:
        _RECORD.reset(token)


def record() -> Decided | None:
    """The record of the HTTP request that is being served; None outside of one."""
    return _RECORD.get()


def once(asked: Asks, choose: Callable[[], Chosen]) -> Chosen:
    """What is chosen for `asked`: what this HTTP request was given before, else what `choose` says now."""
    found = _RECORD.get()
    if found is None:
        return choose()
    if found.chosen is None or found.asked != asked:
        found.asked, found.chosen = asked, choose()
    return found.chosen
