"""The grammar of `steering`: one parser for the server's field, for `extra_args` and for what a client sends.

    "NAME"                                     a profile at its own default strength
    "NAME@0.8"                                 a profile at a strength
    "NAME@sha256:0123456789ab"                 a version of it, by the first 12 or more digits of its digest
    {"profile": "NAME", "alpha": 0.8}          a profile at a strength; `alpha` may be left out
    [..., ...]                                 1 to 4 different profiles, added up
    "none"                                     no steering, said aloud; null says the same
    {"experiment": "NAME", "unit": "ID"}       the arm of an experiment that ID is assigned to; `unit` may be left out
    {"unit": "ID"}                             nothing by itself, and whose request it is; also beside `profile`

A NAME of an object may have a version or a strength, too. `parse` reads the forms that name profiles, `wish_of` all of
them. `split_model` reads the same after the name of a model.

Pure: text and numbers in, `Asked` out. Which profiles exist and which strengths they allow is the registry's to say.
"""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .errors import AlphaError, RequestError, shown

__all__ = [
    "FIELD",
    "LONGEST_UNIT",
    "MOST_PROFILES",
    "NONE",
    "SHA256",
    "Asked",
    "Wish",
    "parse",
    "read_text",
    "split_model",
    "wish_of",
]

FIELD = "steering"
NONE = "none"
SHA256 = "sha256:"
"""What a version begins with."""
MOST_PROFILES = 4
"""How many profiles one request may add up."""
LONGEST_UNIT = 512
"""Characters of a unit."""

_FIELDS = ("profile", "alpha")
_OF_EXPERIMENTS = ("experiment", "unit", "arm")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_VERSION = re.compile(r"[0-9a-f]{12,64}")
_FORMS = f'"NAME", {{"profile": "NAME", "alpha": 0.8}}, a list of up to {MOST_PROFILES} of these, or "none"'
_ENTERS = '{"experiment": "NAME", "unit": "ID"}'


@dataclass(frozen=True, slots=True)
class Asked:
    """A profile by name, and a number or None for the profile's default. The profile's range decides on the number.

    version: the first 12 to 64 hex digits of the profile's digest, or None for the version that is active.
    """

    profile: str
    alpha: Any = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """All that a request says.

    profiles: None where it names none, () for "none". experiment: the name of one to enter. unit: whose request it is;
    all requests of a unit get the same arm. arm: the one to be given, whatever the unit is assigned to.
    """

    profiles: tuple[Asked, ...] | None = None
    experiment: str | None = None
    unit: str | None = None
    arm: str | None = None


def wish_of(value: object) -> Wish:
    """Read the value of a `steering` field; a field that is null says as little as none at all.

    Raises:
        RequestError: as `parse`; or a profile beside an experiment, an arm without one, a unit that is no text of 1 to
            `LONGEST_UNIT` characters.
    """
    if not isinstance(value, Mapping) or not any(name in value for name in _OF_EXPERIMENTS):
        return Wish(None if value is None else parse(value))
    said = {name: _text(value[name], name) for name in _OF_EXPERIMENTS if name in value}
    rest = {name: inner for name, inner in value.items() if name not in said}
    if "arm" in said and "experiment" not in said:
        raise RequestError(f"steering.arm is of an experiment; write {_ENTERS} and the arm", param="steering.arm")
    if "experiment" in said and rest:
        name = str(next(iter(rest)))
        raise RequestError(
            f"steering has {shown(name)} beside an experiment, which decides by itself; write {_ENTERS}, or leave the "
            "experiment out",
            param=f"steering.{name[:80]}",
        )
    return Wish(parse(rest) if rest else None, **said)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_UNIT:
        raise RequestError(
            f"steering.{name} must be text of 1 to {LONGEST_UNIT} characters; write {_ENTERS}", param=f"steering.{name}"
        )
    return value


def parse(value: object) -> tuple[Asked, ...]:
    """Read the value of a `steering` field; empty means unsteered.

    Raises:
        RequestError: any other form than a name, an object with `profile` and `alpha`, a list of those, or "none".
        AlphaError: a strength that is no number.
    """
    if value is None or value == NONE:
        return ()
    if not isinstance(value, list | tuple):
        return (_parse_one(value),)
    if not 1 <= len(value) <= MOST_PROFILES:
        raise RequestError(
            f"steering is a list of {len(value)}; allowed are 1 to {MOST_PROFILES} profiles; write {_FORMS}"
        )
    asked = tuple(map(_parse_one, value))
    names = [one.profile for one in asked]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise RequestError(f"steering names {shown(twice)} twice; name it once, with the strength that you want")
    return asked


def read_text(text: str) -> Any:
    """The value of the field, of one word of a command line: JSON where it begins like JSON, else a name.

    Raises:
        RequestError: it begins like JSON and is none, has a key twice or a number without end, or `parse` refuses it.
    """
    value: Any = text.strip()
    if value[:1] in ("{", "[", '"'):
        try:
            value = json.loads(value, object_pairs_hook=_no_key_twice, parse_constant=_no_number, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"steering {shown(text)} is not JSON ({error}); write {_FORMS}") from error
    parse(value)
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RequestError(f"steering has {shown(max(keys, key=keys.count))} twice; write it once")
    return found


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_number(digits[:80])


def _parse_one(value: object) -> Asked:
    if value == NONE:
        raise RequestError(f'"none" stands alone, not in a list; write {_FORMS}')
    if isinstance(value, str):
        return _parse_name(value)
    if isinstance(value, Mapping):
        return _parse_object(value)
    raise RequestError(f"steering must be {_FORMS}, not {type(value).__name__}")


def _parse_object(value: Mapping[Any, Any]) -> Asked:
    if "vectors" in value:  # the form of another tool
        raise RequestError(
            "vectors cannot be sent with a request; name a registered profile: "
            '"steering": {"profile": "NAME", "alpha": 0.8} (GET /v1/steering/profiles lists them)',
            param="steering.vectors",
        )
    if (found := next((name for name in _OF_EXPERIMENTS if name in value), None)) is not None:
        raise RequestError(f"steering.{found} cannot be used here; name a profile: {_FORMS}", param=f"steering.{found}")
    unknown = sorted(str(key) for key in value if key not in _FIELDS)
    if unknown:
        raise RequestError(
            f"unknown field {shown(unknown[0])} in steering; allowed: {', '.join(_FIELDS)}; write {_FORMS}",
            param=f"steering.{unknown[0][:80]}",
        )
    profile = value.get("profile")
    if not isinstance(profile, str):
        raise RequestError(f"steering.profile must be the name of a profile; write {_FORMS}", param="steering.profile")
    if profile == NONE:
        raise RequestError('"none" takes no strength: write "steering": "none"', param="steering.profile")
    asked = _parse_name(profile)
    if "alpha" not in value:
        return asked
    if asked.alpha is not None:
        raise AlphaError(f"steering has two strengths, in {shown(profile)} and in alpha; write one of them")
    return replace(asked, alpha=_alpha(value["alpha"]))


def _parse_name(text: str) -> Asked:
    """NAME, NAME@STRENGTH or NAME@sha256:DIGITS."""
    name, at, rest = text.partition("@")
    if not name:
        raise RequestError(f"unknown profile '': the name is empty; write {_FORMS}", param="steering.profile")
    if not at:
        return Asked(name)
    if name == NONE:
        raise RequestError('"none" takes no strength: write "steering": "none"', param="steering.profile")
    if rest.startswith(SHA256):
        if not _VERSION.fullmatch(rest.removeprefix(SHA256)):
            raise RequestError(
                f"{shown(rest)} is no version of a profile; write {SHA256} and the first 12 to 64 digits of its "
                "digest, 0-9 and a-f (GET /v1/steering/profiles shows it)",
                param="steering.profile",
            )
        return Asked(name, version=rest.removeprefix(SHA256))
    if not _NUMBER.fullmatch(rest):
        raise AlphaError(
            f"{shown(rest)}, after the @ in {shown(text)}, is neither a strength nor a version; write NAME@0.8 or "
            f"NAME@{SHA256}DIGITS"
        )
    return Asked(name, float(rest))


def split_model(model: str, served: Iterable[str]) -> tuple[str, str] | None:
    """The model and the wish of "MODEL:NAME", where NAME may have a strength or a version; None for any other text.

    served: the names of all models. One that is `model` itself wins; else the longest that stands before a colon.
    """
    names = set(served)
    if model in names:
        return None
    found = max((name for name in names if model.startswith(f"{name}:")), key=len, default=None)
    return None if found is None else (found, model[len(found) + 1 :])


def _alpha(value: object) -> numbers.Real:
    if value is None:
        raise AlphaError("steering.alpha must be a number; leave it out for the default")
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise AlphaError(f"steering.alpha must be a number, not {type(value).__name__}")
    return value
