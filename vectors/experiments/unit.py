"""The pseudonym of a unit: what a log may hold of whose requests were given an arm.

HMAC-SHA256 (RFC 2104) with a secret key: without the key nobody can tell a unit from its pseudonym by trying names, and
with it an outcomes file can be given the same pseudonyms.
"""

from __future__ import annotations

import hashlib
import hmac

from ..errors import TrimtabError

__all__ = ["LEAST_KEY", "UNIT_KEY", "UnitKey"]

UNIT_KEY = "TRIMTAB_UNIT_KEY"
"""The environment variable that holds the key."""

LEAST_KEY = 32
"""Characters that a key has at least."""

_DIGITS = 32
_FINGERPRINT = "\0fingerprint"  # no unit has a NUL in it


class UnitKey:
    """The key of a server's units. Not shown anywhere.

    Raises:
        TrimtabError: it is too short to be a secret.
    """

    def __init__(self, text: str) -> None:
        if len(text) < LEAST_KEY:
            raise TrimtabError(
                f"the unit key has {len(text)} characters; it needs {LEAST_KEY} or more, at random: set {UNIT_KEY} to "
                "what `openssl rand -hex 32` prints, the same on every replica"
            )
        self.secret = text.encode("utf-8", "surrogateescape")

    def pseudonym(self, unit: str) -> str:
        """32 hex digits: the same for the same unit under the same key, and for no other."""
        return hmac.new(self.secret, unit.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:_DIGITS]

    @property
    def fingerprint(self) -> str:
        """16 hex digits that tell one key from another and give nothing of it away."""
        return self.pseudonym(_FINGERPRINT)[:16]
