"""What commands that ask an endpoint are told about it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from ..errors import SettingError

__all__ = ["address", "key_in"]


def key_in(variable: str | None, option: str) -> str:
    """The key in an environment variable; "none" where no variable is named."""
    if variable is None:
        return "none"
    key = os.environ.get(variable, "").strip()
    if not key:  # what was given may be the key itself, so it is not said again
        raise SettingError(
            f"{option}: no environment variable has that name; give the name of the variable that holds the key"
        )
    if not key.isascii() or not key.isprintable():
        raise SettingError(f"{option}: the variable holds characters that no key has; set it to the key alone")
    return key


def address(base_url: str) -> str:
    """The same, if it is an address."""
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise SettingError("--base-url: is no address of an endpoint; expected one such as http://localhost:8000/v1")
    return base_url
