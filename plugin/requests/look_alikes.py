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

__all__ = ["ADMIN_KEY_HEADER", "CHAT_ROUTE", "LIST", "Look", "look_at", "looks_in"]

CHAT_ROUTE = "/v1/chat/completions"
ADMIN_KEY_HEADER = "x-steering-admin-key"

# The inside of these is the client's own: its texts, its tools, its schemas.
# fmt: off
_FREE = frozenset({
    "messages", "input", "prompt", "prompts", "queries", "documents", "data", "tools", "functions",
    "tool_choice", "function_call", "text", "reasoning", "response_format", "structured_outputs", "guided_json",
    "json_schema", "logit_bias", "prediction", "suffix", "system", "instructions",
    "state", "questions", "criteria",
})
# fmt: on
_TURNS = frozenset({"messages", "input"})

LIST = "[]"
"""A step of a path: into a list."""

_DEEPEST = 6  # steps that are taken
_PROMPTS = frozenset({"messages", "prompt", "input", "query", "items", "state", "token_ids"})  # of all that generate
_INNER = ("profile", "alpha", "experiment")
_FIELD_HERE = f"write the top-level field {FIELD!r} of {CHAT_ROUTE}"
_BEFORE = frozenset({"x", "vllm", "openai"})  # words that a header of a product's own begins with
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
            self._found(_elsewhere(key, path), _dotted((*path, key[:80])))
        elif not path:
            self._has_prompt |= key in _PROMPTS
            if _means_inner(key):
                self._spilled = key

    def header(self, name: str) -> None:
        """Take the name of a header, in lower case."""
        words = [word for word in re.split(r"[-_]", name) if word not in _BEFORE]
        if name == ADMIN_KEY_HEADER:  # asks for nothing
            return
        if words and _means_steering(words[0]):
            self._found(f"the header {shown(name)} steers nothing; {_FIELD_HERE}", name[:80])

    def query(self, key: str) -> None:
        """Take a key of the URL's query."""
        if _means_steering(key):
            self._found(f"{shown(key)} is not taken from the URL; {_FIELD_HERE}", key[:80])

    def end(self) -> None:
        """Say that there are no more keys."""
        if self._spilled is not None and self._has_prompt:
            inner = (
                '{"experiment": "NAME", "unit": "ID"}'
                if "exp" in self._spilled.casefold()
                else '{"profile": "NAME", "alpha": 0.8}'
            )
            form = f'"steering": {inner}'
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
        if key != FIELD:
            _walk_into(value, (*path, str(key)), look)


def _walk_into(value: Any, path: tuple[str, ...], look: Look) -> None:
    if isinstance(value, list):
        path = (*path, LIST)
    if not isinstance(value, Mapping | list) or not looks_in(path):
        return
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, Mapping):
            _walk(one, path, look)
        else:
            _walk_into(one, path, look)


@lru_cache(maxsize=4096)
def looks_in(path: tuple[str, ...]) -> bool:
    """Whether the keys of what lies at a path count. An object in a list has the list's path.

    Of messages these are the message's own keys, and those of a part of its content: there, too, `steering` would be
    ignored.
    """
    keys = [step for step in path if step != LIST]
    if len(path) >= _DEEPEST:
        return False
    if keys[0] in _TURNS:
        return path[-1] == LIST and keys[1:] in ([], ["content"])
    return keys[-1] not in _FREE


def _elsewhere(key: str, path: tuple[str, ...]) -> str:
    if path:
        return f"{shown(key)} is not taken from {_dotted(path)[:80]}; {_FIELD_HERE}"
    return f"unknown field {shown(key)}; did you mean {FIELD!r} (on {CHAT_ROUTE})?"


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path).replace(f".{LIST}", LIST)


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
