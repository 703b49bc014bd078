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
from dataclasses import dataclass
from typing import Any

from trimtab.vectors import Profile
from trimtab.vectors.asked import Wish

__all__ = ["Chosen", "Decided", "Entered", "Governed", "deciding", "ended", "entered_by", "once", "record"]

Chosen = Sequence[tuple[Profile, float]]
"""Profiles with their strengths, in the order of the request; empty means unsteered."""


@dataclass(frozen=True, slots=True)
class Entered:
    """How a request takes part in an experiment; the fields are those of `trimtab.vectors.experiments.Exposure`."""

    exposure_id: str
    experiment: str
    seed: str
    variation: str
    unit: str
    unit_source: str
    served: str
    forced: bool
    plan: str


class Governed(tuple[tuple[Profile, float], ...]):
    """What is chosen by an access policy or by an experiment.

    added: how many of its parts, counted from the end, the server adds by itself. subject: who asked, or None. rule,
    outcome, reason: see `control.policy.decide`; empty without a policy. mode: of the policy. entered: None where the
    request takes part in no experiment.
    """

    entered: Entered | None = None
    added: int = 0
    subject: str | None = None
    rule: str = ""
    outcome: str = ""
    reason: str = ""
    mode: str = ""


class Decided:
    """What one HTTP request asks for, and what it gets. Both are None until that is decided.

    request: vLLM's object of it, once it is known. over: whether its answer has ended.
    """

    asked: Wish | None = None
    chosen: Chosen | None = None
    request: Any = None
    over: bool = False


ended: list[Callable[[Decided], None]] = []
"""Told each HTTP request whose answer has ended."""

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
        record.over = True
        for tell in ended:
            tell(record)


def record() -> Decided | None:
    """The record of the HTTP request that is being served; None outside of one."""
    return _RECORD.get()


def entered_by(chosen: Chosen | None) -> Entered | None:
    """How what was chosen takes part in an experiment; None where it does not."""
    return chosen.entered if isinstance(chosen, Governed) else None


def once(asked: Wish, choose: Callable[[], Chosen]) -> Chosen:
    """What is chosen for `asked`: what this HTTP request was given before, else what `choose` says now."""
    found = _RECORD.get()
    if found is None:
        return choose()
    if found.chosen is None or found.asked != asked:
        found.asked, found.chosen = asked, choose()
    return found.chosen
