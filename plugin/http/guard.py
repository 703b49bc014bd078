"""Nothing is ever served unsteered because of a typo, or because the field is where it is not read.

Leans on starlette's order of things: a route reads its body before it answers.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimtab.vectors.errors import RequestError

from ..requests.look_alikes import Look
from ..requests.refused import MISPLACED, tell
from .keys import KeyReader
from .sockets import guarded

__all__ = ["MOST_BYTES", "RefuseMisplacedSteering"]

MOST_BYTES = 256 << 20
"""The largest JSON body that is read on. vLLM itself sets no limit."""

_SLICE = 8 << 10  # bytes that are looked through before other requests have their turn
_MOST_AFTER = 64 << 20  # bytes that a refused client may go on sending, so that it is there to read why


class RefuseMisplacedSteering:
    """ASGI middleware: a request that asks for steering where it would be ignored gets a 400.

    It looks at the keys of a POST's body while the route reads it, piece by piece, and at the names of its headers and
    of the fields of its URL. What no route reads is not looked at, and no body is held or parsed a second time.
    """

    def __init__(self, app: ASGIApp, covered: frozenset[str]) -> None:
        self._app = app
        self._covered = covered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            look = Look(serves=False)
            _look_around(scope, look)
            await guarded(self._app, scope, receive, send, look)
            return
        if scope["type"] != "http" or scope["method"] != "POST" or _is_form(scope):
            await self._app(scope, receive, send)
            return
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        look = Look(serves=path in self._covered)
        _look_around(scope, look)
        reading = _Reading(receive, look)
        answering = False

        async def answer(message: Message) -> None:
            nonlocal answering
            if reading.refused is None or answering:
                answering = True
                await send(message)

        try:
            await self._app(scope, reading.receive, answer)
        except HTTPException:  # a route outside starlette's own handling; ours, or else not to be hidden
            if reading.refused is None:
                raise
        if reading.refused is not None and not answering:
            tell(MISPLACED if reading.status == 400 else "too_large")
            await _refusal(reading.refused, reading.status)(scope, receive, send)


class _Reading:
    """A `receive` that looks at what passes. refused: what was found wrong, once the client can be told."""

    def __init__(self, receive: Receive, look: Look) -> None:
        self.refused: RequestError | None = None
        self.status = 400
        self._receive = receive
        self._look = look
        self._keys = KeyReader(look)
        self._bytes = 0
        self._looked = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        try:
            await self._read(message.get("body", b""), more=message.get("more_body", False))
        except RequestError as error:
            self.refused, self.status = error, 413
        while self._look.problem is not None and self.refused is None:
            # Read what the client still sends, so that it is there to read the answer; keep nothing of it.
            if not message.get("more_body", False) or self._bytes > _MOST_AFTER:
                self.refused = self._look.problem
                break
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._bytes += len(message.get("body", b""))
        if self.refused is not None:
            raise HTTPException(self.status, str(self.refused))
        return message

    async def _read(self, body: bytes, *, more: bool) -> None:
        self._bytes += len(body)
        if self._bytes > MOST_BYTES:
            raise RequestError(f"the body has more than {MOST_BYTES >> 20} MiB; send a smaller one", param="body")
        for start in range(0, len(body), _SLICE):
            if self._look.problem is not None:
                return
            if start or self._looked:
                await asyncio.sleep(0)
            for _ in self._keys.feed(body[start : start + _SLICE]):
                await asyncio.sleep(0)
            self._looked = True
        if not more:
            self._keys.end()


def _look_around(scope: Scope, look: Look) -> None:
    for name, _ in scope.get("headers", ()):
        look.header(name.decode("latin-1"))
    with suppress(ValueError):  # more fields than anybody writes
        for key, _ in parse_qsl(scope.get("query_string", b"").decode("latin-1"), True, max_num_fields=100):
            look.query(key)


def _is_form(scope: Scope) -> bool:
    """Whether the body is a file that is uploaded: no route reads JSON out of it."""
    headers = scope.get("headers", ())
    return any(name == b"content-type" and value.lower().startswith(b"multipart/") for name, value in headers)


def _refusal(error: RequestError, status: int) -> JSONResponse:
    problem = {"message": str(error), "type": "BadRequestError", "param": error.param, "code": status}
    return JSONResponse({"error": problem}, status_code=status)
