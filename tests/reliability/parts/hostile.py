"""Names, bodies and nesting that no honest client sends: each is a 4xx, and the server is well afterwards.

names: (name, place) pairs sent. bodies: bodies of 64 MB, and of 100,000 levels, sent to each route that takes one.
refused: 4xx. slowest_health_ms: the longest that /health took in another client meanwhile. grown_mib: memory of
all of its processes afterwards, beyond what they had before.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from tests.engine.server import CHAT, MODEL_NAME
from tests.reliability.served import ADMIN, Shared, asking, policy, shared
from trimtab.plugin.http.admin import KEY_HEADER
from trimtab.plugin.http.routes import COMPLETIONS, INVOCATIONS, MESSAGES, RESPONSES

_MB64 = 64 << 20
_DEEP = 100_000
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]")
_NAMES = (
    *(
        "../held",
        "..",
        ".",
        "/",
        "/etc/passwd",
        "held/../held",
        "held\0",
        "\0",
        "\x1b[2J",
        "held\n",
        "\r\nX-A: b",
        "é",
        "ﬀ",
    ),
    *("\u202eheld", "\u2028", "a" * 64, "a" * 10_000, "-held", "_", " held", "held ", "HELD", "hеld", "%2e%2e", "%00"),
    *("held;rm -rf /", "$(id)", "`id`", "{{7*7}}", "' OR 1=1 --", "<script>", "../../" * 100, "\\\\host\\share", "con"),
    *("held@", "held@@1", "held@sha256:", "held@sha256:zz", "held@1e999", "held@NaN", "held@0x1", "@1", "held@1@1"),
    *("__proto__", "constructor", "NaN", "true", "[]", "{}", "held,say-arm", "held\ud800", "\ud800", "🙂" * 500),
)
_BODY_ROUTES = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    MESSAGES,
    INVOCATIONS,
    "/tokenize",
    "/v1/steering/profiles/stage",
    "/v9/none",
)


def run(work: Path, share: float) -> dict[str, Any]:
    server = shared(work)
    server.govern(policy())
    before = server.resident()
    wrong: list[str] = []
    tries = list(_names())[:: max(1, round(1 / share))]
    for sent, reply in ((sent, send(server)) for sent, send in tqdm(tries, "hostile names", mininterval=5)):
        if not 300 <= reply.status_code < 500:  # a redirect is to the same path without a slash
            wrong.append(f"{sent}: {reply.status_code} {reply.text[:200]}")
        elif reply.content and _OBEYED.search(reply.json().get("error", {}).get("message", "")):
            wrong.append(f"{sent}: its refusal holds control characters")
    bodies = [(path, what) for path in _BODY_ROUTES for what in _BODIES][:: max(1, round(1 / share))]
    with _Watch(server) as watch:
        for path, what in tqdm(bodies, "hostile bodies", mininterval=5):
            problem = _post(server, path, _BODIES[what]())
            if problem:
                wrong.append(f"{what} to {path}: {problem}")
    well = server.ready().status_code == server.http.post(CHAT, json=asking(CHAT)).status_code == 200
    wrong += [] if well else ["the server is not well afterwards"]
    return {
        "names": len(tries),
        "bodies": len(bodies),
        "refused": len(tries) + len(bodies) - len(wrong),
        "slowest_health_ms": round(1000 * watch.slowest),
        "grown_mib": round((server.resident() - before) / 2**20),
        "wrong": wrong,
    }


def _names() -> Iterator[tuple[str, Any]]:
    """(what is sent, what sends it), for each name in each place that takes one."""

    def post(body: dict[str, Any], path: str = CHAT) -> Any:
        sent = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return lambda server: server.http.post(path, content=sent, headers=headers)

    for name in _NAMES:
        plain = asking(CHAT)
        yield f"steering {name[:40]!a}", post({**plain, "steering": name})
        yield f"profile {name[:40]!a}", post({**plain, "steering": {"profile": name, "alpha": 1}})
        yield f"field {name[:40]!a}", post({**plain, "steering": {name: 1}})
        yield f"model {name[:40]!a}", post({**plain, "model": f"{MODEL_NAME}:{name}"})
        yield f"experiment {name[:40]!a}", post({**plain, "steering": {"experiment": name, "unit": "u"}})
        for what in ("stage", "unload"):
            yield f"{what} {name[:40]!a}", lambda server, name=name, what=what: _change(server, what, name)
        # A client takes dots out of a path before it sends it.
        if name.isprintable() and name.isascii() and len(name) < 2000 and name not in (".", ".."):
            quoted = httpx.URL("http://x", path=f"/{name}").raw_path.decode().replace("/", "%2F")
            yield f"GET {name[:40]!a}", lambda server, quoted=quoted: server.http.get(f"/v1/steering/profiles/{quoted}")


def _change(server: Shared, what: str, name: str) -> httpx.Response:
    sent = json.dumps({"name": name}).encode()
    headers = {KEY_HEADER: ADMIN, "Content-Type": "application/json"}
    return server.http.post(f"/v1/steering/profiles/{what}", content=sent, headers=headers)


def _filled(head: bytes, part: bytes, tail: bytes = b"") -> bytes:
    return head + part * (_MB64 // len(part)) + tail


_ASKS = f'{{"model": "{MODEL_NAME}", '.encode()
_BODIES: dict[str, Callable[[], bytes]] = {
    "open lists": lambda: _filled(b"", b"["),
    "open objects": lambda: _filled(b"", b'{"a":'),
    "many lists": lambda: _filled(b'{"\\u0041":[', b"[],", b"[]]}"),
    "many keys": lambda: _filled(b"{", b'"steerin":1,', b'"a":1}'),
    "a long name": lambda: _filled(_ASKS + b'"steering": "', b"a", b'"}'),
    "a long list of names": lambda: _filled(_ASKS + b'"steering": [', b'"a",', b'"a"]}'),
    "a long number": lambda: _filled(_ASKS + b'"steering": {"profile": "held", "alpha": ', b"1", b"}}"),
    "no UTF-8": lambda: _filled(b'{"steering": "', b"\xff\xfe", b'"}'),
    "spaces": lambda: _filled(b"", b" "),
    "zeros": lambda: _filled(b"", b"\0"),
    "deep lists": lambda: _ASKS + b'"steering": ' + b"[" * _DEEP + b"]" * _DEEP + b"}",
    "deep objects": lambda: _ASKS + b'"steering": ' + b'{"a":' * _DEEP + b"1" + b"}" * _DEEP + b"}",
    "deep messages": lambda: _ASKS + b'"messages": ' + b"[" * _DEEP + b"]" * _DEEP + b"}",
}
"""By what they are: of 64 MB, or 100,000 levels."""


def _post(server: Shared, path: str, body: bytes) -> str | None:
    """What is wrong with the answer, if anything is."""
    try:
        reply = httpx.post(
            server.http.base_url.join(path), content=body, headers={"Content-Type": "application/json"}, timeout=120
        )
    except httpx.TransportError as error:
        return f"no answer ({type(error).__name__})"
    return None if 400 <= reply.status_code < 500 else f"{reply.status_code} {reply.text[:200]}"


class _Watch:
    """Asks for /health, as another client. slowest: the longest that it took, in seconds."""

    def __init__(self, server: Shared) -> None:
        self.slowest = 0.0
        self._url = server.http.base_url.join("/health")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        with httpx.Client(timeout=120) as client:
            while not self._ended.wait(0.05):
                began = time.monotonic()
                client.get(self._url)
                self.slowest = max(self.slowest, time.monotonic() - began)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
