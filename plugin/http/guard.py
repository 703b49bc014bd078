"""Nothing is ever served unsteered because of a typo, or because a route does not know the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from vllm.exceptions import VLLMValidationError

__all__ = ["RefuseSteeringElsewhere", "refuse_look_alikes"]

_FIELD = "steering"
# Where the field ends up by mistake: vLLM accepts and ignores what it does not know in all of them but the first, which
# would reach the engine by a door of its own.
_CONTAINERS = ("vllm_xargs", "extra_body", "extra_args", "sampling_params", "chat_template_kwargs")
# What a body must hold to be worth parsing: a word, an escape that could spell one, or the zero bytes of UTF-16
# and UTF-32, which JSON parsers read as well.
_SUSPICIOUS = (b'"steer', b'"trimtab', b"\\u00", b"\0")


def refuse_look_alikes(data: object, *, allow_steering: bool) -> None:
    """Check the keys of a request's JSON body.

    Raises:
        VLLMValidationError: `steering` where it is not covered, any other key that begins with "steer", another tool's
            `{"vectors": …}`, or `steering` inside another object, such as `vllm_xargs` or `extra_body`.
    """
    if not isinstance(data, Mapping):
        return
    for key in data:
        if str(key).lower().startswith("steer") and not (allow_steering and key == _FIELD):
            raise VLLMValidationError(_misplaced(str(key)[:80]), parameter=str(key)[:80])
    steering = data.get(_FIELD)
    if isinstance(steering, Mapping) and "vectors" in steering:
        raise VLLMValidationError(
            "vectors cannot be sent with a request; name a registered profile: "
            '"steering": {"profile": "NAME", "alpha": 0.8} (GET /v1/steering/profiles lists them)',
            parameter="steering.vectors",
        )
    for name in _CONTAINERS:
        _refuse_inside(data.get(name), name)


def _refuse_inside(inner: object, name: str) -> None:
    if not isinstance(inner, Mapping):
        return
    for key in inner:
        if str(key).lower().startswith(("steer", "trimtab")):
            raise VLLMValidationError(
                f"{str(key)[:80]!r} is not taken from {name}; write the top-level field "
                f"{_FIELD!r} of /v1/chat/completions",
                parameter=name,
            )
    for nested in _CONTAINERS:
        _refuse_inside(inner.get(nested), f"{name}.{nested}")


def _misplaced(key: str) -> str:
    if key == _FIELD:
        return f"this route does not serve {_FIELD!r}; use /v1/chat/completions or leave the field out"
    return f"unknown field {key!r}; did you mean {_FIELD!r} (on /v1/chat/completions)?"


class RefuseSteeringElsewhere:
    """ASGI middleware: a body that asks for steering on a route that does not cover it gets a 400.

    A byte search decides whether a body is parsed at all, so large bodies without the word cost a scan.
    """

    def __init__(self, app: ASGIApp, covered: frozenset[str]) -> None:
        self._app = app
        self._covered = covered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or scope["method"] != "POST" or path in self._covered:
            await self._app(scope, receive, send)
            return
        messages, body = await _read(receive)
        problem = _problem(body)
        if problem is not None:
            await JSONResponse({"error": problem}, status_code=400)(scope, receive, send)
            return
        await self._app(scope, _replay(messages, receive), send)


async def _read(receive: Receive) -> tuple[list[Message], bytes]:
    messages: list[Message] = []
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request" or not message.get("more_body", False):
            return messages, b"".join(m.get("body", b"") for m in messages)


def _replay(messages: list[Message], receive: Receive) -> Receive:
    pending = iter(messages)

    async def replayed() -> Message:
        message = next(pending, None)
        return message if message is not None else await receive()

    return replayed


def _problem(body: bytes) -> dict[str, Any] | None:
    lowered = body.lower()
    if not any(mark in lowered for mark in _SUSPICIOUS):
        return None
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None  # no JSON that any route could read: the route itself says so
    try:
        refuse_look_alikes(data, allow_steering=False)
    except VLLMValidationError as error:
        return {"message": error.args[0], "type": "BadRequestError", "param": error.parameter, "code": 400}
    return None
