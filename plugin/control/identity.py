"""Who asks: from what a request carries to the name of a subject.

The middleware keeps what a request carries for as long as it is served; whose it is is told where the request is
decided, by the policy that holds then. A key is kept as its sha256 only, and compared with all keys of the policy in
the same time whichever it is.

Leans on asyncio: a task sees what the request that started it carried, because tasks copy their context. A thread does
not, so what is admitted there in a server is of an unknown subject, and has the rights of one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from .policy.model import LOCAL, Policy, is_subject

__all__ = ["Carried", "carried_by", "carrying", "headers_carried", "identify", "serve_http", "who_asks"]

_BEARER = "bearer"
_MESSAGES = "/v1/messages"  # where Anthropic's clients send their key in a header of its own


@dataclass(frozen=True)
class Carried:
    """What a request carries that may say who asks.

    keys: sha256 (hex) of the keys that it presents. headers: all its values, by lower-case name; not shown, since they
    may hold a secret.
    """

    keys: tuple[str, ...] = ()
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)


_CARRIED: ContextVar[Carried | None] = ContextVar("trimtab_carried", default=None)
_serves_http = False


def serve_http() -> None:
    """From now on a request of this process that carries nothing is of an unknown subject, and not of `LOCAL`."""
    global _serves_http
    _serves_http = True


def carried_by(path: str, headers: Iterable[tuple[bytes, bytes]]) -> Carried:
    """What an HTTP request carries. path: without the prefix under which the server is mounted."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    keys = [key for value in found.get("authorization", ()) if (key := _bearer(value))]
    if path == _MESSAGES or path.startswith(f"{_MESSAGES}/"):
        keys += [value for value in found.get("x-api-key", ()) if value]
    others = {name: values for name, values in found.items() if name not in ("authorization", "x-api-key", "cookie")}
    return Carried(tuple(hashlib.sha256(key.encode("latin-1")).hexdigest() for key in keys), others)


def _bearer(value: str) -> str:
    scheme, _, key = value.partition(" ")
    return key.strip() if scheme.lower() == _BEARER else ""


@contextmanager
def carrying(carried: Carried) -> Iterator[None]:
    """Serve a request that carries this."""
    token = _CARRIED.set(carried)
    try:
        yield
    finally:
        _CARRIED.reset(token)


def headers_carried() -> Mapping[str, Sequence[str]]:
    """The headers of the request that is served here, by lower-case name."""
    carried = _CARRIED.get()
    return {} if carried is None else carried.headers


def who_asks(policy: Policy) -> str | None:
    """The subject of the request that is served here; None is unknown."""
    carried = _CARRIED.get()
    if carried is None:
        return None if _serves_http else LOCAL
    return identify(policy, carried)


def identify(policy: Policy, carried: Carried) -> str | None:
    """The subject of what a request carries; None is unknown: no key, a key of nobody, or keys of two."""
    names = {name for key in carried.keys if (name := _owner(policy, key)) is not None}
    if len(names) != 1:
        return None
    [name] = names
    header = policy.subjects[name].subject_from
    if header is None:
        return name
    # A gateway that names nobody asks for itself. Two names are one too many: a client may have sent one of them.
    named = carried.headers.get(header, ())
    if not named:
        return name
    return named[0] if len(named) == 1 and is_subject(named[0]) else None


def _owner(policy: Policy, key: str) -> str | None:
    found = None
    for name, caller in policy.subjects.items():
        for known in caller.keys:
            if hmac.compare_digest(known, key):
                found = name
    return found
