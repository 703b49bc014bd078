"""Keys of a request that were meant to be `steering`: misspelt, in the wrong place, or taken out of it.

vLLM accepts and ignores the fields that it does not know, so each of these would be served unsteered. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from trimtab.vectors.asked import FIELD
from trimtab.vectors.errors import RequestError, shown

__all__ = ["CHAT_ROUTE", "DEEPEST", "FREE", "Look", "look_at"]

CHAT_ROUTE = "/v1/chat/completions"

# fmt: off
FREE = frozenset({
    "messages", "input", "prompt", "prompts", "queries", "documents", "data", "tools", "functions",
    "tool_choice", "function_call", "text", "reasoning", "response_format", "structured_outputs", "guided_json",
    "json_schema", "logit_bias", "prediction", "suffix", "system", "instructions",
})
# fmt: on
"""Fields whose inside is the client's own: its texts, its tools, its schemas."""

DEEPEST = 6
"""How many objects inside each other are looked into."""

_PROMPTS = frozenset({"messages", "prompt", "input"})
_INNER = ("profile", "alpha")
_LONGEST = 64  # what is longer is nobody's slip
# English words within two slips of `steering`, which may well be somebody's field.
# fmt: off
_WORDS = frozenset({
    "cheering", "jeering", "leering", "metering", "peering", "petering", "searing", "seeding", "seeing",
    "seeking", "seeming", "seeping", "severing", "shearing", "sheeting", "sleeping", "smearing", "sneering",
    "sneezing", "spearing", "speeding", "staring", "starring", "stealing", "steaming", "steeling", "steeping",
    "stemming", "stepping", "sterling", "stewing", "stirring", "storing", "strewing", "string", "strings",
    "swearing", "sweeping", "tearing", "tiering", "uttering", "veering",
    "profiler",
})
# fmt: on


class Look:
    """One look at the keys of one request. serves: whether its route serves the field.

    `problem` is the first thing that is wrong, or None.
    """

    def __init__(self, *, serves: bool) -> None:
        self.problem: RequestError | None = None
        self._serves = serves
        self._spilled: str | None = None
        self._has_prompt = False
        self._seen: set[tuple[str, ...]] = set()

    def key(self, key: str, path: tuple[str, ...]) -> None:
        """Take one key. path: the keys of the objects around it, outermost first."""
        if not path and key == FIELD:
            self._field()
        elif path and path[0] == FIELD:
            self._once(key, path)
        elif _means_steering(key):
            self._found(_elsewhere(key, path), ".".join((*path, key[:80])))
        elif not path:
            self._has_prompt |= key in _PROMPTS
            if _means_inner(key):
                self._spilled = key

    def end(self) -> None:
        """Say that there are no more keys."""
        if self._spilled is not None and self._has_prompt:
            form = '"steering": {"profile": "NAME", "alpha": 0.8}'
            self._found(f"{shown(self._spilled)} is no field of a request by itself; write {form}", self._spilled[:80])

    def _field(self) -> None:
        if not self._serves:
            self._found(f"this route does not serve {FIELD!r}; use {CHAT_ROUTE} or leave the field out", FIELD)
        self._once(FIELD, ())

    def _once(self, key: str, path: tuple[str, ...]) -> None:
        place = (*path, key)
        if place in self._seen:
            name = f"{FIELD}.{key[:80]}" if path else FIELD
            self._found(f"{name!r} is written twice, and only one would count; write it once", FIELD)
        elif len(self._seen) < 100:
            self._seen.add(place)

    def _found(self, message: str, param: str) -> None:
        self.problem = self.problem or RequestError(message, param=param)


def look_at(data: Mapping[Any, Any], *, serves: bool) -> None:
    """Look at the keys of a request that was parsed.

    Raises:
        RequestError: as `Look` finds it.
    """
    look = Look(serves=serves)
    _walk(data, (), look)
    look.end()
    if look.problem is not None:
        raise look.problem


def _walk(data: Mapping[Any, Any], path: tuple[str, ...], look: Look) -> None:
    for key, value in data.items():
        look.key(str(key), path)
        inside = (*path, str(key))
        if isinstance(value, Mapping) and key not in FREE and key != FIELD and len(inside) < DEEPEST:
            _walk(value, inside, look)


def _elsewhere(key: str, path: tuple[str, ...]) -> str:
    if path:
        where = ".".join(path)[:80]
        return f"{shown(key)} is not taken from {where}; write the top-level field {FIELD!r} of {CHAT_ROUTE}"
    return f"unknown field {shown(key)}; did you mean {FIELD!r} (on {CHAT_ROUTE})?"


@lru_cache(maxsize=4096)
def _means_steering(key: str) -> bool:
    if len(key) > _LONGEST:
        return key[:_LONGEST].casefold().startswith("steer")
    words = _words(key)
    joined = "".join(words)
    return (
        "steering" in joined
        or "trimtab" in joined
        or any(word.startswith("steer") or _near(word, "steering", 2) for word in (joined, *words))
    )


@lru_cache(maxsize=4096)
def _means_inner(key: str) -> bool:
    joined = "".join(_words(key)) if len(key) <= _LONGEST else ""
    return any(_near(joined, inner, 1) for inner in _INNER)


def _words(key: str) -> list[str]:
    """The words of a key in snake, kebab or camel case, in lower case."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", key))
    return [word for word in re.split(r"[\W\d_]+", parted.casefold()) if word]


def _near(word: str, target: str, most: int) -> bool:
    """Whether at most `most` letters were put in, left out, changed or swapped with their neighbour."""
    # A slip takes at most one letter away. Looked at first, because a stranger chooses how many keys there are.
    if abs(len(word) - len(target)) > most or len(set(target).difference(word)) > most or word in _WORDS:
        return False
    before, last = [0] * (len(target) + 1), list(range(len(target) + 1))
    for i, a in enumerate(word, 1):
        row = [i]
        for j, b in enumerate(target, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == target[j - 2] and word[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > most and min(last) > most:  # a swap reaches two rows back
            return False
        before, last = last, row
    return last[-1] <= most
