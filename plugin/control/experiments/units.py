"""Whose request it is: the unit, from where a plan looks for it.

steering.unit   in the request's `steering`, which every router hands on
X-Session-ID    that header, or `session_id` in the body, as vLLM itself reads them
user            `user` in the body; `metadata.user_id` of /v1/messages
conversation    the beginning of a chat, up to its first message of a user. It stays the same while a client sends all
                turns again, and is the same for all who begin alike

None of them is one turn of a conversation: the answers before it would be of other arms.

Leans on the request classes of vllm/entrypoints/openai/{chat_completion, completion, responses}/protocol.py (0.29 to
0.32).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trimtab.vectors.asked import Wish
from trimtab.vectors.experiments import Experiment

__all__ = ["UnitFinder", "unit_of"]

UnitFinder = Callable[[Experiment], tuple[str, str] | None]
"""The unit of a request, for an experiment, and where it was found; None where there is none."""

_SESSION = "x-session-id"


def unit_of(
    one: Experiment, wish: Wish, request: Any = None, headers: Mapping[str, Sequence[str]] | None = None
) -> tuple[str, str] | None:
    """The first unit that is found where an experiment looks for it, and where that was; None where there is none.

    Args:
        request: vLLM's object of it, or None.
        headers: all values, by lower-case name.
    """
    for source in one.unit:
        if source == "steering.unit":
            unit = wish.unit
        elif source == "X-Session-ID":
            unit = getattr(request, "session_id", None) or _only(headers or {})
        elif source == "user":
            unit = getattr(request, "user", None)
        else:
            unit = _conversation(request)
        if isinstance(unit, str) and unit.strip():
            return unit.strip(), source
    return None


def _only(headers: Mapping[str, Sequence[str]]) -> str | None:
    """A header that comes twice has no value: somebody on the way may have added one."""
    values = headers.get(_SESSION, ())
    return values[0] if len(values) == 1 else None


def _conversation(request: Any) -> str | None:
    messages = getattr(request, "messages", None)
    if messages is None and getattr(request, "previous_response_id", None) is None:
        messages = getattr(request, "input", None)
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list):
        return None
    first: list[Any] = [getattr(request, "instructions", None)]
    for message in messages:
        first.append(message)
        if _role(message) == "user":
            # Pictures make it long.
            text = json.dumps(first, sort_keys=True, default=_plain)
            return hashlib.sha256(text.encode()).hexdigest()
    return None


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else getattr(message, "role", None)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)
