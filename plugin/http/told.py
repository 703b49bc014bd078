"""Every answer says how it was steered: `X-Steering-*` headers, and the same as `steering` in its body.

What is said is what was decided for the request (`requests.decided`), not what it asked for. It goes into the bytes of
the answer, so that all routes say it alike: as the first field of a JSON body, or of the first event of a stream. An
answer of /v1/responses has it inside, as a field of the response object, which is stored and read again later.

Leans on starlette: an answer's first message has the status and headers, the next ones its body; and on vLLM's JSON
answers, each an object in one message, and events, each in one. Leans on vllm/entrypoints/openai/responses/protocol.py:
`ResponsesResponse.from_request`, through which each response object is made (0.29 to 0.32).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimtab.vectors.asked import FIELD, NONE

from ..compat.wrapping import wrap
from ..requests.decided import Chosen, Decided, deciding, entered_by, record
from .routes import RESPONSES, STEERED

__all__ = ["SayWhatWasServed", "headers_of", "install", "object_of"]

_EXPOSED = (
    "X-Steering-Profile, X-Steering-Alpha, X-Steering-Digest, X-Steering-Exposure, X-Steering-Experiment, "
    "X-Steering-Variation"
)
_EVENT = b"data: {"


def headers_of(chosen: Chosen) -> dict[str, str]:
    """The headers of an answer; comma-separated where a request adds profiles up, in its order."""
    entered = entered_by(chosen)
    part = (
        {}
        if entered is None
        else {
            "X-Steering-Exposure": entered.exposure_id,
            "X-Steering-Experiment": entered.experiment,
            "X-Steering-Variation": entered.variation,
        }
    )
    if not chosen:
        return {"X-Steering-Profile": NONE, **part}
    return {
        **part,
        "X-Steering-Profile": ", ".join(profile.name for profile, _ in chosen),
        "X-Steering-Alpha": ", ".join(repr(alpha) for _, alpha in chosen),
        "X-Steering-Digest": ", ".join(profile.digest for profile, _ in chosen),
    }


def object_of(chosen: Chosen) -> dict[str, Any]:
    """The `steering` object of a body: one value per field, or a list of them where a request adds profiles up.

    `variation` is the arm that the unit is assigned to. Where its client chose for itself, it is not what was served.
    """
    entered = entered_by(chosen)
    names = ("exposure_id", "experiment", "variation")
    part = {} if entered is None else {name: getattr(entered, name) for name in names}
    if not chosen:
        return {"profile": NONE, **part}
    columns: dict[str, list[Any]] = {
        "profile": [profile.name for profile, _ in chosen],
        "alpha": [alpha for _, alpha in chosen],
        "digest": [profile.digest for profile, _ in chosen],
    }
    return {**{name: values[0] if len(chosen) == 1 else values for name, values in columns.items()}, **part}


def install() -> None:
    """Let response objects say it, too. Safe to call again."""
    from vllm.entrypoints.openai.responses.protocol import ResponsesResponse

    wrap(ResponsesResponse, "from_request", _response)


def _response(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    response = make(*args, **kwargs)
    found = record()
    if found is not None and found.chosen is not None:
        setattr(response, FIELD, object_of(found.chosen))
    return response


class SayWhatWasServed:
    """ASGI middleware: an answer of a route that steers says how it was steered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or scope["method"] != "POST" or path not in STEERED:
            await self._app(scope, receive, send)
            return
        with deciding() as found:
            across_origins = "origin" in Headers(scope=scope)
            await self._app(scope, receive, _Answer(send, found, across_origins, in_body=path != RESPONSES).send)


class _Answer:
    """A `send` that adds to one answer. in_body: whether to its body as well."""

    def __init__(self, send: Send, found: Decided, across_origins: bool, *, in_body: bool) -> None:
        self._send = send
        self._found = found
        self._across_origins = across_origins
        self._in_body = in_body
        self._serves = self._is_stream = False
        self._start: Message | None = None  # held back until it is known what was decided, and how long the body is

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start, self._serves = message, message["status"] == 200
            self._is_stream = Headers(scope=message).get("content-type", "").startswith("text/event-stream")
            if not self._serves or (self._is_stream and self._found.chosen is not None):
                await self._begin()
            return
        if self._serves and self._in_body and message["type"] == "http.response.body":
            message = self._with_object(message)
        await self._begin()
        await self._send(message)

    async def _begin(self) -> None:
        if self._start is None:
            return
        start, self._start = self._start, None
        if self._serves:
            headers = MutableHeaders(scope=start)
            headers.update(headers_of(self._found.chosen or ()))
            if self._across_origins:
                headers.append("Access-Control-Expose-Headers", _EXPOSED)
        await self._send(start)

    def _with_object(self, message: Message) -> Message:
        """The message with the object in it, where one begins in it; and the body's length in the headers."""
        body: bytes = message.get("body", b"")
        begins = body.find(_EVENT) if self._is_stream else (0 if body.startswith(b"{") else -1)
        if begins < 0:
            return message
        self._in_body = False  # it is said
        at = begins + (len(_EVENT) if self._is_stream else 1)
        told = json.dumps({FIELD: object_of(self._found.chosen or ())})[1:-1].encode()
        told += b"" if body[at : at + 1] == b"}" else b","
        if self._start is not None and "content-length" in Headers(scope=self._start):
            headers = MutableHeaders(scope=self._start)
            headers["content-length"] = str(int(headers["content-length"]) + len(told))
        return {**message, "body": body[:at] + told + body[at:]}
