"""Where steering is not served, asking for it is a 400; everything else reaches its route byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import Message
from vllm.exceptions import VLLMValidationError

from trimtab.plugin.http.guard import RefuseSteeringElsewhere, refuse_look_alikes

COVERED = "/v1/chat/completions"
ELSEWHERE = "/v1/completions"


async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/octet-stream")


def app_at(prefix: str = "") -> Starlette:
    app = Starlette(routes=[Route(path, echo, methods=["POST", "PUT", "GET"]) for path in (COVERED, ELSEWHERE)])
    app.add_middleware(RefuseSteeringElsewhere, covered=frozenset({COVERED}))
    return Starlette(routes=[Mount(prefix, app)]) if prefix else app


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app_at()) as client:
        yield client


REFUSED: list[Any] = [
    {"steering": "polite"},
    {"steering": None},
    {"prompt": "x", "steering": {"profile": "polite"}},
    {"steer": 1},
    {"Steering": "polite"},
    {"STEERING_PROFILE": "polite"},
    {"steering_vectors": [1]},
    {"steering": {"vectors": [[1.0]]}},
    {"vllm_xargs": {"steering": "polite"}},
    {"vllm_xargs": {"Trimtab": "{}"}},
    {"extra_body": {"steering": "polite"}},
    {"extra_args": {"steering": "polite"}},
    {"sampling_params": {"extra_args": {"steering": "polite"}}},
    {"chat_template_kwargs": {"steering": "polite"}},
]


@pytest.mark.parametrize("data", REFUSED)
def test_a_body_that_asks_for_steering_elsewhere_is_refused(data: Any, client: TestClient) -> None:
    answer = client.post(ELSEWHERE, json=data)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("BadRequestError", 400)
    assert error["param"].split(".")[0] in data
    assert COVERED in error["message"] or "registered profile" in error["message"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_an_encoding_hides_nothing(encoding: str, client: TestClient) -> None:
    body = json.dumps({"steering": "polite"}).encode(encoding)
    assert json.loads(body) == {"steering": "polite"}  # so a route would read it
    assert client.post(ELSEWHERE, content=body).status_code == 400


@pytest.mark.parametrize("key", ['"\\u0073teering"', '"s\\u0074eering"', '"\\u0053teering"', '"\\u0073\\u0074eer"'])
def test_an_escape_hides_nothing(key: str, client: TestClient) -> None:
    assert client.post(ELSEWHERE, content="{" + key + ': "polite"}').status_code == 400


def test_a_body_in_chunks_hides_nothing() -> None:
    chunks = iter([b'{"prompt": "x", "ste', b"", b'ering": "polite"}'])
    sent: list[Message] = []

    async def route(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it must not come here")

    async def receive() -> Message:
        body = next(chunks)
        return {"type": "http.request", "body": body, "more_body": not body.endswith(b"}")}

    async def send(message: Message) -> None:
        sent.append(message)

    middleware = RefuseSteeringElsewhere(route, covered=frozenset())
    asyncio.run(middleware({"type": "http", "method": "POST", "path": ELSEWHERE}, receive, send))
    assert sent[0]["status"] == 400


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"messages": [{"role": "user", "content": '"steering": "polite"'}]}).encode(),
        json.dumps({"messages": [{"role": "user", "content": "x", "steering": "polite"}]}).encode(),
        json.dumps({"prompt": "steering"}).encode(),
        json.dumps({"vllm_xargs": {"top": 1}, "note": "steering"}).encode(),
        json.dumps([{"steering": "polite"}]).encode(),
        b'"steering"',
        b'{"steering": "pol',
        b'--x\r\nContent-Disposition: form-data; name="steering"\r\n\r\npolite\r\n--x--',
        b"\xff\xfe\0binary",
        b'{"steer": ' + b"[" * 200_000,
        b"",
    ],
)
def test_any_other_body_arrives_unchanged(body: bytes, client: TestClient) -> None:
    answer = client.post(ELSEWHERE, content=body)
    assert (answer.status_code, answer.content) == (200, body)


@given(chunks=st.lists(st.binary(max_size=20), max_size=6))
def test_a_body_in_chunks_arrives_unchanged(chunks: list[bytes], client: TestClient) -> None:
    assert client.post(ELSEWHERE, content=iter(chunks)).content == b"".join(chunks)


@pytest.mark.parametrize("tail", [b'"}', b'", "vllm_xargs": {}}'])
def test_a_large_body_arrives_unchanged(tail: bytes, client: TestClient) -> None:
    body = b'{"image": "' + b"A" * (8 << 20) + tail
    assert client.post(ELSEWHERE, content=body).content == body


def test_the_covered_route_and_other_methods_are_not_looked_at(client: TestClient) -> None:
    body = b'{"steering": "polite"}'
    assert client.post(COVERED, content=body).content == body
    assert client.put(ELSEWHERE, content=body).content == body
    assert client.post(COVERED + "/batch", content=body).status_code == 400
    assert client.post(COVERED + "/", content=body).status_code == 400


def test_an_app_below_a_root_path_covers_the_same_route() -> None:
    with TestClient(app_at("/below")) as client:
        assert client.post("/below" + COVERED, json={"steering": "polite"}).status_code == 200
        assert client.post("/below" + ELSEWHERE, json={"steering": "polite"}).status_code == 400


def test_the_route_sees_the_messages_as_they_came_and_the_disconnect_after_them() -> None:
    came: list[Message] = [
        {"type": "http.request", "body": b'{"a"', "more_body": True},
        {"type": "http.request", "body": b": 1}", "more_body": False},
        {"type": "http.disconnect"},
    ]
    seen: list[Message] = []

    async def route(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([await receive() for _ in came])

    async def ask() -> None:
        messages = iter(came)

        async def receive() -> Message:
            return next(messages)

        async def send(message: Message) -> None:
            raise AssertionError(message)

        middleware = RefuseSteeringElsewhere(route, covered=frozenset())
        await middleware({"type": "http", "method": "POST", "path": ELSEWHERE}, receive, send)

    asyncio.run(ask())
    assert seen == came


@given(st.dictionaries(st.text(max_size=8), st.none() | st.text(max_size=3), max_size=4))
def test_only_keys_that_begin_with_steer_are_look_alikes(data: dict[str, object]) -> None:
    if any(key.lower().startswith("steer") for key in data):
        with pytest.raises(VLLMValidationError):
            refuse_look_alikes(data, allow_steering=False)
    else:
        refuse_look_alikes(data, allow_steering=False)


@pytest.mark.parametrize("data", [data for data in REFUSED if "steering" not in data])
def test_the_covered_route_takes_the_field_and_no_look_alike(data: Any) -> None:
    refuse_look_alikes({"steering": "polite"}, allow_steering=True)
    with pytest.raises(VLLMValidationError):
        refuse_look_alikes({"steering": "polite", **data}, allow_steering=True)


def test_another_tools_form_is_answered_with_ours() -> None:
    with pytest.raises(VLLMValidationError, match=r'name a registered profile: "steering": \{"profile"') as caught:
        refuse_look_alikes({"steering": {"vectors": []}}, allow_steering=True)
    assert caught.value.parameter == "steering.vectors"
