"""A real HTTP server that speaks chat completions and misbehaves on demand: what a client has to live with."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

Reply = Callable[[dict[str, Any]], str]


def question_of(body: dict[str, Any]) -> str:
    """The text of a request."""
    return next(str(part["text"]) for part in body["messages"][0]["content"] if part["type"] == "text")


def picture_of(body: dict[str, Any]) -> str:
    """The data URL of a request's picture."""
    return next(str(part["image_url"]["url"]) for part in body["messages"][0]["content"] if part["type"] == "image_url")


class FakeEndpoint:
    """Answers `reply(body)`. seen: the bodies, in the order of their coming.

    failures: the next requests get these statuses. dead_after: every request after so many gets 503. refuse: every
    request gets 400 with this sentence, about the field `param`. refused: these questions get 400 for being too long.
    later: the next requests get 429 with these values of Retry-After. silent: answers have reasoning and no content.
    mute: answer without X-Steering headers. digest: what the headers say. forced: headers that stand in place of the
    true ones. cards: what it says of profiles, by name. keys: the header Authorization of each request. when: seconds
    at which each came.
    """

    def __init__(self, reply: Reply = question_of) -> None:
        self.reply = reply
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.at_once = self.most_at_once = 0
        self.failures: list[int] = []
        self.dead_after: int | None = None
        self.refuse: str | None = None
        self.param: str | None = None
        self.refused: set[str] = set()
        self.later: list[str] = []
        self.silent = False
        self.when: list[float] = []
        self.mute = False
        self.digest = hashlib.sha256(b"profile").hexdigest()
        self.forced: dict[str, str] = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.cards: dict[str, Any] = {}
        routes = [
            Route("/v1/chat/completions", self._answer, methods=["POST"]),
            Route("/v1/steering/profiles/{name}", self._card),
        ]
        app = Starlette(routes=routes)
        self._server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="error"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    async def _card(self, request: Request) -> Response:
        card = self.cards.get(request.path_params["name"])
        return PlainTextResponse("no such profile", 404) if card is None else JSONResponse(card)

    async def _answer(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.seen.append(body)
        self.keys.append(request.headers.get("authorization", ""))
        self.when.append(time.monotonic())
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await asyncio.sleep(0.005)
            return self._reply(body)
        finally:
            self.at_once -= 1

    def _reply(self, body: dict[str, Any]) -> Response:
        if self.refuse is not None:
            return JSONResponse({"error": {"message": self.refuse, "code": 400, "param": self.param}}, 400)
        if question_of(body) in self.refused:
            return JSONResponse({"error": {"message": "the prompt is too long", "code": 400, "param": None}}, 400)
        if self.later:
            return PlainTextResponse("later", 429, headers={"Retry-After": self.later.pop()})
        if self.failures:
            return PlainTextResponse("broken", self.failures.pop())
        if self.dead_after is not None and len(self.seen) > self.dead_after:
            return PlainTextResponse("gone", 503)
        message: dict[str, str | None] = {"role": "assistant", "content": self.reply(body)}
        if self.silent:
            message = {"role": "assistant", "content": None, "reasoning": "let me think"}
        completion = {
            "id": "one",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        return JSONResponse(completion, headers={} if self.mute else self._headers(body.get("steering")))

    def _headers(self, steering: Any) -> dict[str, str]:
        if steering in (None, "none"):
            return {"X-Steering-Profile": "none"} | self.forced
        asked = [one if isinstance(one, dict) else {"profile": one} for one in [steering]]
        return {
            "X-Steering-Profile": asked[0]["profile"],
            "X-Steering-Alpha": repr(float(asked[0].get("alpha", 1.0))),
            "X-Steering-Digest": self.digest,
        } | self.forced
