"""Who may change what a running server serves: keys of their own, which open nothing else."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import StartupError

__all__ = ["ADMIN_KEYS", "AdminKeys", "read_keys"]

ADMIN_KEYS = "TRIMTAB_ADMIN_KEYS"
"""The environment variable with the keys, separated by commas: plain, or as sha256:HEX."""

_SHORTEST = 16
_HASHED = re.compile(r"sha256:[0-9a-f]{64}")


class AdminKeys:
    """The hashes of the keys that are valid; several, so that one can be replaced without a gap."""

    def __init__(self, hashes: Iterable[str]) -> None:
        self._hashes = tuple(dict.fromkeys(hashes))

    @classmethod
    def of_environment(cls) -> AdminKeys:
        """Those of this process."""
        return cls(hashed(key) for key in _words(os.environ.get(ADMIN_KEYS, "")))

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def __str__(self) -> str:
        """As the environment variable says it, without any key in plain text."""
        return ",".join(self._hashes)

    def who(self, key: str) -> str | None:
        """A name for whoever has this key, to be written to the audit log; None for no valid key.

        Takes the same time whether a key is valid and whichever it is.
        """
        asked = _hash(key)
        matching = [known for known in self._hashes if hmac.compare_digest(known.encode(), asked.encode())]
        return f"admin {matching[0][7:15]}" if matching else None


def read_keys(file: Path | None) -> AdminKeys:
    """The keys of the environment and of a file with one per line, where `#` begins a comment.

    Raises:
        StartupError: a key that is too short, or a file that cannot be read or holds no key.
    """
    found = _words(os.environ.get(ADMIN_KEYS, ""))
    if file is not None:
        try:
            lines = file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"the file of admin keys {file.name} cannot be read ({error})") from error
        in_file = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not in_file:
            raise StartupError(f"the file of admin keys {file.name} holds no key; write one per line")
        found += in_file
    return AdminKeys(hashed(key) for key in found)


def hashed(key: str) -> str:
    """A key as sha256:HEX. Raises a StartupError for one that is too short to be a secret."""
    if _HASHED.fullmatch(key):
        return key
    if len(key) < _SHORTEST or key.startswith("sha256:"):
        raise StartupError(
            f"an admin key has {len(key)} characters; it needs at least {_SHORTEST}, or is sha256: and 64 hex digits. "
            "Make one with: openssl rand -hex 32"
        )
    return _hash(key)


def _hash(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()}"


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
