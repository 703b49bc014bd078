"""What `--steering` asks for: a profile's name, or JSON in the form of the field `steering` of requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SettingError

__all__ = ["NONE", "Wish", "parse_steering", "wishes"]

NONE = "none"
_FORMS = 'NAME, {"profile": "NAME", "alpha": 0.8}, a list of these, or none'


@dataclass(frozen=True)
class Wish:
    """A profile by name; alpha is None for the profile's own strength."""

    profile: str
    alpha: float | None = None


def parse_steering(text: str | None) -> Any:
    """The value of the field: JSON where the text begins like an object, a list or a string, else a name.

    Raises:
        SettingError: it begins like JSON and is none, or has another form.
    """
    if text is None:
        return None
    value: Any = text.strip()
    if value[:1] in ("{", "[", '"'):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise SettingError(f"--steering {text}: is not JSON ({error}); write {_FORMS}") from error
    wishes(value)
    return value


def wishes(steering: Any) -> tuple[Wish, ...]:
    """The profiles that a value asks for, in its order; none for None and "none".

    Raises:
        SettingError: another form.
    """
    if steering is None or steering == NONE:
        return ()
    return tuple(map(_wish, steering if isinstance(steering, list) else [steering]))


def _wish(value: Any) -> Wish:
    if isinstance(value, str) and value:
        return Wish(value)
    if isinstance(value, Mapping) and isinstance(value.get("profile"), str) and not value.keys() - {"profile", "alpha"}:
        alpha = value.get("alpha")
        if alpha is None or (isinstance(alpha, int | float) and not isinstance(alpha, bool)):
            return Wish(value["profile"], alpha)
    raise SettingError(f"cannot read the steering {json.dumps(value)}; write {_FORMS}")
