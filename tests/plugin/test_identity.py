"""Who asks is told by keys and, for a gateway, by its header; whatever else a request says, it is unknown."""

from __future__ import annotations

import asyncio
import threading
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plugin.policies import KEYS, policy_of
from trimtab.plugin.control import identity
from trimtab.plugin.control.identity import Carried, carried_by, carrying, identify, serve_http, who_asks
from trimtab.plugin.http.identity import KeepIdentity

POLICY = policy_of(
    """\
    subjects:
      team-a: {keys: [<team-b>, <team-a>]}
      gateway: {keys: [<gateway>], subject_from: X-Consumer}
      team-c: {}
    """
)
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
A, B, G = KEYS["team-a"], KEYS["team-b"], KEYS["gateway"]


def bearer(key: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {key}"


def carried(path: str, *headers: tuple[str, str]) -> Carried:
    return carried_by(path, [(name.lower().encode(), value.encode()) for name, value in headers])


@pytest.mark.parametrize(
    ("path", "headers", "subject"),
    [
        (CHAT, [], None),
        (CHAT, [bearer(A)], "team-a"),
        (CHAT, [bearer(B)], "team-a"),  # its second key
        (CHAT, [("authorization", f"bearer {A}")], "team-a"),
        (CHAT, [bearer(A + "x")], None),
        (CHAT, [bearer("")], None),
        (CHAT, [("Authorization", A)], None),
        (CHAT, [("Authorization", f"Basic {A}")], None),
        (CHAT, [bearer(sha256(A.encode()).hexdigest())], None),  # what the file says is no key
        (CHAT, [("x-api-key", A)], None),
        (MESSAGES, [("x-api-key", A)], "team-a"),
        (MESSAGES + "/count_tokens", [("x-api-key", A)], "team-a"),
        ("/v1/messagesx", [("x-api-key", A)], None),
        (MESSAGES, [("x-api-key", A), bearer("of the server itself")], "team-a"),
        (MESSAGES, [("x-api-key", A), bearer(B)], "team-a"),
        (MESSAGES, [("x-api-key", A), bearer(G)], None),  # two subjects
        (CHAT, [bearer(A), bearer(G)], None),
        (CHAT, [("X-Consumer", "team-a")], None),  # anybody can send that
        (CHAT, [bearer(A), ("X-Consumer", "team-c")], "team-a"),
        (CHAT, [bearer(G), ("X-Consumer", "team-c")], "team-c"),
        (CHAT, [bearer(G), ("X-Consumer", "a@b.c")], "a@b.c"),
        (CHAT, [bearer(G)], "gateway"),
        (CHAT, [bearer(G), ("X-Consumer", "team-c"), ("X-Consumer", "team-a")], None),
        (CHAT, [bearer(G), ("X-Consumer", "team-c, team-a")], None),
        (CHAT, [bearer(G), ("X-Consumer", "")], None),
        (CHAT, [bearer(G), ("X-Consumer", "local")], None),  # nobody is local over HTTP
        (CHAT, [bearer(G), ("X-Consumer", "*")], None),
    ],
)
def test_a_subject_is_told_by_what_a_request_carries(
    path: str, headers: list[tuple[str, str]], subject: str | None
) -> None:
    assert identify(POLICY, carried(path, *headers)) == subject


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"x-consumer"]), st.binary(max_size=40))))
def test_nobody_becomes_a_subject_by_chance(headers: list[tuple[bytes, bytes]]) -> None:
    assert identify(POLICY, carried_by(MESSAGES, headers)) is None


def test_no_key_is_kept_in_the_clear() -> None:
    found = carried(MESSAGES, bearer(A), ("x-api-key", G), ("cookie", B), ("x-consumer", "team-c"))
    assert found.keys == tuple(sha256(key.encode()).hexdigest() for key in (A, G))
    assert not any(key in str((found, dict(found.headers))) for key in (A, B, G))


def test_a_python_program_is_local_until_its_process_serves_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_serves_http", False)
    assert who_asks(POLICY) == "local"
    serve_http()
    assert who_asks(POLICY) is None
    with carrying(carried(CHAT, bearer(A))):
        assert who_asks(POLICY) == "team-a"
    assert who_asks(POLICY) is None


def test_requests_that_are_served_at_once_are_not_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_serves_http", True)
    seen: dict[str, list[str | None]] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        names = seen.setdefault(scope["name"], [])
        names.append(who_asks(POLICY))
        await asyncio.sleep(0.01)

        async def later() -> None:
            await asyncio.sleep(0.01)
            names.append(who_asks(POLICY))

        await asyncio.create_task(later())
        other = threading.Thread(target=lambda: names.append(who_asks(POLICY)))
        other.start()
        other.join()

    async def serve() -> None:
        served = KeepIdentity(app)
        scopes: list[Any] = [
            {"type": kind, "path": f"/base{path}", "root_path": "/base", "headers": headers, "name": name}
            for kind, path, headers, name in [
                ("http", CHAT, [(b"authorization", f"Bearer {A}".encode())], "a"),
                ("http", MESSAGES, [(b"x-api-key", f"{A}".encode())], "b"),
                ("websocket", "/v1/realtime", [(b"authorization", f"Bearer {G}".encode())], "c"),
                ("http", CHAT, [], "d"),
                ("lifespan", "", [], "e"),
            ]
        ]
        unused: Any = None
        await asyncio.gather(*(served(scope, unused, unused) for scope in scopes))

    asyncio.run(serve())
    # A thread knows nothing, which is less and never more.
    expected = {"a": "team-a", "b": "team-a", "c": "gateway", "d": None, "e": None}
    assert seen == {name: [subject, subject, None] for name, subject in expected.items()}
