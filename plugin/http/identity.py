"""Keeps what an HTTP request carries, so that admission can tell who asks."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from ..control.identity import carried_by, carrying

__all__ = ["KeepIdentity"]


class KeepIdentity:
    """ASGI middleware: what a request carries is known wherever it is served, and nowhere else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        with carrying(carried_by(path, scope.get("headers", ()))):
            await self._app(scope, receive, send)
