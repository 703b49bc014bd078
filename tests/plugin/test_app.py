"""vLLM's own HTTP application with our endpoint plugin in it, and no engine behind it: what is refused before one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

from trimtab.plugin.asking import SWITCH
from trimtab.plugin.http import keys
from trimtab.plugin.requests.look_alikes import CHAT_ROUTE

POLITE = {"steering": "polite"}
TURNS = [{"role": "user", "content": "x"}]
GENERATING: dict[str, dict[str, Any]] = {
    CHAT_ROUTE: {"messages": TURNS},
    CHAT_ROUTE + "/batch": {"messages": [TURNS]},
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": TURNS, "max_tokens": 2},
    "/invocations": {"messages": TURNS},
}


@pytest.fixture(scope="module")
def client(model_folder: Path) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_PLUGINS", "trimtab")
        patch.setenv(SWITCH, "1")
        parser: Any = FlexibleArgumentParser()  # type: ignore[no-untyped-call]  # vLLM's own is untyped
        args = make_arg_parser(parser).parse_args(["--model", str(model_folder)])
        yield TestClient(build_app(args, supported_tasks=("generate",)))


@pytest.mark.parametrize("route", GENERATING)
@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"stearing": "polite"}, "stearing"),
        ({"Steering": "polite"}, "Steering"),
        ({"metadata": {"steering": "polite"}}, "metadata.steering"),
        ({"profile": "polite", "alpha": 1}, "alpha"),
    ],
)
def test_what_was_meant_to_be_steering_is_a_400_on_every_generating_route(
    client: TestClient, route: str, more: dict[str, Any], param: str
) -> None:
    answer = client.post(route, json={"model": "m", **GENERATING[route], **more})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert "steering" in answer.json()["error"]["message"]


@pytest.mark.parametrize("route", GENERATING)
def test_the_field_is_let_through_where_it_is_served(client: TestClient, route: str) -> None:
    """To vLLM's own part, which misses its engine here, whether there is the field or not."""
    unraised = TestClient(client.app, raise_server_exceptions=False)
    plain, steered = (unraised.post(route, json={"model": "m", **GENERATING[route], **more}) for more in ({}, POLITE))
    assert (plain.status_code, plain.text) == (steered.status_code, steered.text)
    assert plain.status_code == 500


def asked(client: TestClient, path: str, body: Iterator[bytes]) -> list[Message]:
    """What the application answers to a POST whose body comes in pieces, as far as it reads it."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": next(body), "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}

    async def answer() -> None:
        await client.app(scope, receive, send)

    asyncio.run(answer())
    return sent


@pytest.mark.parametrize(("path", "status"), [("/health", 405), ("/no-such-route", 404)])
def test_of_a_hostile_body_for_a_route_that_reads_none_not_a_byte_is_read(
    client: TestClient, path: str, status: int
) -> None:
    def never() -> Iterator[bytes]:
        raise AssertionError("it must not be read")
        yield b""

    assert asked(client, path, never())[0]["status"] == status


@pytest.mark.parametrize("route", GENERATING)
def test_a_hostile_body_is_read_no_further_than_its_most_parts(
    client: TestClient, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MOST_PARTS", 20_000)
    read = 0

    def pieces() -> Iterator[bytes]:
        nonlocal read
        yield b'{"\\u0041":['
        while read < 100_000:
            read += 600
            yield b"[],[]," * 100
        raise AssertionError("it must not be read")

    assert asked(client, route, pieces())[0]["status"] == 413
    assert 29_000 <= read <= 31_000  # two parts in three bytes
