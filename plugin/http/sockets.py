"""The guard of a WebSocket (`/v1/realtime`): a message that asks for steering ends the connection.

Leans on the ASGI specification of WebSockets: what an application gets and sends are messages with a `type`.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimtab.vectors.errors import RequestError

from ..requests.look_alikes import Look
from .keys import KeyReader

__all__ = ["guarded"]

_POLICY_VIOLATION = 1008
_LONGEST_REASON = 123  # bytes, by the protocol


async def guarded(app: ASGIApp, scope: Scope, receive: Receive, send: Send, opening: Look) -> None:
    """Serve one connection, and close it where steering is asked for: nothing behind a WebSocket reads it.

    opening: has looked at the headers and the URL of the connection.
    """
    refused = opening.problem
    if refused is not None:
        await receive()  # the request to connect
        await send(_closing(refused))  # before it is accepted: a 403
        return
    closed = False

    async def read() -> Message:
        nonlocal closed
        message = await receive()
        text = message.get("text")
        problem = await _problem_in(text) if message["type"] == "websocket.receive" and text else None
        if problem is None:
            return message
        await send(_closing(problem))
        closed = True
        return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION}

    async def write(message: Message) -> None:
        if not closed:  # what is still under way has nobody to go to
            await send(message)

    await app(scope, read, write)


async def _problem_in(text: str) -> RequestError | None:
    look = Look(serves=False)
    keys = KeyReader(look)
    try:
        for _ in keys.feed(text.encode("utf-8", "surrogatepass")):
            await asyncio.sleep(0)
    except RequestError as error:
        return error
    keys.end()
    return look.problem


def _closing(problem: RequestError) -> Message:
    reason = str(problem).encode()[:_LONGEST_REASON].decode(errors="ignore")
    return {"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason}
