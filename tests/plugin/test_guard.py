"""Where steering is not served, asking for it is a 400; everything else reaches its route byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from trimtab.plugin.http import guard, keys
from trimtab.plugin.http.guard import RefuseMisplacedSteering
from trimtab.plugin.http.keys import TURN_PARTS, KeyReader
from trimtab.plugin.requests.look_alikes import Look

COVERED = "/v1/chat/completions"
ELSEWHERE = "/v1/completions"
BATCH = COVERED + "/batch"


async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/octet-stream")


def unguarded() -> Starlette:
    return Starlette(routes=[Route(path, echo, methods=["POST", "PUT", "GET"]) for path in (COVERED, ELSEWHERE, BATCH)])


def app_at(prefix: str = "") -> Starlette:
    app = unguarded()
    app.add_middleware(RefuseMisplacedSteering, covered=frozenset({COVERED}))
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
    {"stearing": "polite"},
    {"metadata": {"steering": "polite"}},
    {"prompt": "x", "profile": "polite", "alpha": 1},
    {"vllm_xargs": {"steering": "polite"}},
    {"vllm_xargs": {"Trimtab": "{}"}},
    {"extra_body": {"steering": "polite"}},
    {"extra_args": {"steering": "polite"}},
    {"sampling_params": {"extra_args": {"steering": "polite"}}},
    {"chat_template_kwargs": {"steering": "polite"}},
    {"metadata": {"tags": [{"steering": "polite"}]}},
    {"vllm_xargs": [["a", {"steering": "polite"}]]},
    {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y", "steering": "polite"}]},
    {"messages": [[{"role": "user", "content": "x", "steering": "polite"}]]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "steering": "polite"}]}]},
    {"input": [{"role": "user", "content": "x", "stearing": "polite"}]},
]


@pytest.mark.parametrize("data", REFUSED)
def test_a_body_that_asks_for_steering_elsewhere_is_refused(data: Any, client: TestClient) -> None:
    answer = client.post(ELSEWHERE, json=data)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("BadRequestError", 400)
    assert error["param"].split(".")[0].partition("[")[0] in data
    assert COVERED in error["message"] or 'write "steering"' in error["message"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_an_encoding_hides_nothing(encoding: str, client: TestClient) -> None:
    body = json.dumps({"steering": "polite"}).encode(encoding)
    assert json.loads(body) == {"steering": "polite"}  # so a route would read it
    assert client.post(ELSEWHERE, content=body).status_code == 400
    pieces = [{"type": "http.request", "body": body[at : at + 1], "more_body": True} for at in range(len(body))]
    last = {"type": "http.request", "body": b"", "more_body": False}
    assert asyncio.run(asked(iter([*pieces, last]), unguarded()))[0]["status"] == 400


@pytest.mark.parametrize("key", ['"\\u0073teering"', '"s\\u0074eering"', '"\\u0053teering"', '"\\u0073\\u0074eer"'])
def test_an_escape_hides_nothing(key: str, client: TestClient) -> None:
    assert client.post(ELSEWHERE, content="{" + key + ': "polite"}').status_code == 400


def test_a_body_in_chunks_hides_nothing() -> None:
    chunks = (b'{"prompt": "x", "ste', b"", b'ering": "polite"}')
    came = [{"type": "http.request", "body": body, "more_body": not body.endswith(b"}")} for body in chunks]
    assert asyncio.run(asked(iter(came), unguarded()))[0]["status"] == 400


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"messages": [{"role": "user", "content": '"steering": "polite"'}]}).encode(),
        json.dumps({"messages": [{"role": "tool", "content": {"steering": 1}, "made": {"steering": 2}}]}).encode(),
        json.dumps({"messages": [{"content": [{"type": "tool_use", "input": {"steering": 1}}]}]}).encode(),
        json.dumps({"prompt": "x", "tools": [{"steering": 1}], "documents": [[{"steering": 1}]]}).encode(),
        json.dumps({"prompt": "steering"}).encode(),
        json.dumps({"vllm_xargs": {"top": 1}, "note": "steering"}).encode(),
        json.dumps([{"steering": "polite"}]).encode(),
        b'"steering"',
        b'--x\r\nContent-Disposition: form-data; name="steering"\r\n\r\npolite\r\n--x--',
        b"\xff\xfe\0binary",
        b'{"user": ' + b"[" * 400,
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


@pytest.mark.parametrize("data", [data for data in REFUSED if "steering" not in data])
def test_the_covered_route_takes_the_field_and_no_look_alike(data: Any, client: TestClient) -> None:
    assert client.post(COVERED, json={"steering": "polite"}).status_code == 200
    assert client.post(COVERED, json={"steering": "polite", **data}).status_code == 400


def test_a_field_that_is_written_twice_is_refused_where_it_is_served(client: TestClient) -> None:
    answer = client.post(COVERED, content='{"steering": "safe", "messages": [], "steering": null}')
    assert answer.status_code == 400
    assert "written twice" in answer.json()["error"]["message"]


def test_a_lone_surrogate_in_a_key_comes_back_as_its_escape(client: TestClient) -> None:
    answer = client.post(ELSEWHERE, content=r'{"steering\ud800": 1}')
    assert (answer.status_code, r"\ud800" in answer.json()["error"]["param"]) == (400, True)


@pytest.mark.parametrize("path", [COVERED, ELSEWHERE])
@pytest.mark.parametrize(
    "name",
    ["X-Steering", "X-Steering-Profile", "steering", "Steering-Alpha", "x-stearing-profile", "X-Trimtab-Profile"],
)
def test_a_header_that_is_meant_to_steer_is_refused(name: str, path: str, client: TestClient) -> None:
    answer = client.post(path, json={"messages": []}, headers={name: "polite"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == name.lower()
    assert f"write the top-level field 'steering' of {COVERED}" in error["message"]


@pytest.mark.parametrize("path", [COVERED, ELSEWHERE])
@pytest.mark.parametrize("query", ["steering=polite", "a=b&steering=", "Steering=%7B%7D", "%73teering=x", "steer=x"])
def test_a_url_that_is_meant_to_steer_is_refused(query: str, path: str, client: TestClient) -> None:
    answer = client.post(f"{path}?{query}", json={"messages": []})
    assert answer.status_code == 400
    assert "is not taken from the URL" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Traffic-Steering": "eu", "X-String": "a", "X-Profile": "b", "X-Request-Id": "steering"},
        {"User-Agent": "steering/1.0", "Referer": "https://example.org/?steering=1", "Cookie": "steering=polite"},
    ],
)
def test_headers_and_urls_that_mean_something_else_pass(headers: dict[str, str], client: TestClient) -> None:
    body = b'{"messages": []}'
    assert client.post(f"{ELSEWHERE}?trace=steering&stream=1", content=body, headers=headers).content == body
    assert client.get(f"{ELSEWHERE}?steering=1").status_code == 200
    assert (
        client.post(ELSEWHERE + "?" + "&".join(f"f{number}=1" for number in range(200)), content=body).content == body
    )


def test_a_file_that_is_uploaded_is_not_looked_at(client: TestClient) -> None:
    body = b'{"steering": "polite"}'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post(ELSEWHERE, content=body, headers=headers).content == body


async def asked(came: Iterator[Message], app: Any, path: str = ELSEWHERE) -> list[Message]:
    """What the middleware sends for a body that comes as these messages."""
    sent: list[Message] = []

    async def receive() -> Message:
        return next(came)

    async def send(message: Message) -> None:
        sent.append(message)

    await RefuseMisplacedSteering(app, covered=frozenset())(
        {"type": "http", "method": "POST", "path": path}, receive, send
    )
    return sent


def test_a_route_that_handles_no_errors_is_answered_for_and_its_own_error_is_not_hidden() -> None:
    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise HTTPException(418)

    def came(body: bytes) -> Iterator[Message]:
        return iter([{"type": "http.request", "body": body, "more_body": False}])

    assert asyncio.run(asked(came(b'{"steering": "polite"}'), bare))[0]["status"] == 400
    with pytest.raises(HTTPException, match="418"):
        asyncio.run(asked(came(b'{"user": "polite"}'), bare))


def chunks_of(piece: bytes, count: int | None = None) -> Iterator[Message]:
    while count is None or count > 0:
        yield {"type": "http.request", "body": piece, "more_body": True}
        count = None if count is None else count - 1


def test_a_body_that_no_route_reads_is_not_read() -> None:
    def never() -> Iterator[Message]:
        raise AssertionError("it must not be read")
        yield {}

    for path in ("/health", "/no-such-route", ELSEWHERE):
        app = Starlette(routes=[Route("/health", echo, methods=["GET"]), Route(ELSEWHERE, unread, methods=["POST"])])
        assert asyncio.run(asked(never(), app, path))[0]["status"] in (200, 404, 405)


async def unread(request: Request) -> Response:
    return Response("")


@pytest.mark.parametrize(
    ("head", "piece", "status"),
    [
        (b'{"a": "', b"A" * 4096, 413),
        (b'{"\\u0041":[', b"[],[],", 413),
        (b'{"steering": "polite", "a": "', b"A" * 4096, 400),
    ],
)
def test_an_endless_body_is_not_read_for_ever(
    head: bytes, piece: bytes, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(guard, "_MOST_AFTER", 1 << 20)
    monkeypatch.setattr(keys, "MOST_PARTS", 20_000)
    sent = asyncio.run(asked(chain(chunks_of(head, 1), chunks_of(piece)), unguarded()))
    assert sent[0]["status"] == status


HOSTILE = {
    "lists": b'{"\\u0041":[' + b"[],[]," * 20_000,
    "objects": b'{"a":[' + b'{"a":1},' * 12_000,
    "keys": b"{" + b",".join(b'"sterin%d":1' % number for number in range(5000)) + b"}",
    "one string": b'{"a": "' + b"A" * 300_000,
}


@pytest.mark.parametrize("size", [500, 60_000, 1 << 20])
@pytest.mark.parametrize("shape", HOSTILE)
def test_other_requests_have_their_turn_while_a_hostile_body_is_looked_at(
    shape: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of any size: between two turns a slice of it is looked through at most, and TURN_PARTS of its parts."""
    body = HOSTILE[shape]
    turns = [(0, 0)]
    looked = 0

    class Counted(KeyReader):
        def __init__(self, look: Look) -> None:
            super().__init__(look)
            readers.append(self)

        def feed(self, data: bytes) -> Iterator[None]:
            nonlocal looked
            looked += len(data)
            return super().feed(data)

    readers: list[Counted] = []
    monkeypatch.setattr(guard, "KeyReader", Counted)

    async def others() -> None:
        while True:
            turns.extend((looked, reader.parts) for reader in readers)
            await asyncio.sleep(0)

    async def ask() -> None:
        task = asyncio.create_task(others())
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        came = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        await asked(iter([*came, {"type": "http.request", "body": b"", "more_body": False}]), unguarded())
        task.cancel()

    asyncio.run(ask())
    turns.append((looked, readers[0].parts))
    assert (looked == len(body)) is (shape != "keys")
    assert max(after[0] - before[0] for before, after in pairwise(turns)) <= 8192
    assert max(after[1] - before[1] for before, after in pairwise(turns)) <= TURN_PARTS + 50  # a key counts 50


def test_nothing_is_looked_through_once_a_body_is_known_to_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[bytes] = []

    class Noting(KeyReader):
        def feed(self, data: bytes) -> Iterator[None]:
            fed.append(data)
            return super().feed(data)

    monkeypatch.setattr(guard, "KeyReader", Noting)
    first, last = b'{"steering": 1, "a": [' + b"[]," * 5000, b"1]}"
    came = [
        {"type": "http.request", "body": first, "more_body": True},
        {"type": "http.request", "body": b"[]," * 100, "more_body": True},
        {"type": "http.request", "body": last, "more_body": False},
    ]
    left = iter(came)
    assert asyncio.run(asked(left, unguarded()))[0]["status"] == 400
    assert fed == [first[:8192]]
    assert next(left, None) is None  # the client has sent it all, and is there to read the answer


def test_other_methods_are_not_looked_at(client: TestClient) -> None:
    body = b'{"steering": "polite"}'
    assert client.post(COVERED, content=body).content == body
    assert client.put(ELSEWHERE, content=body).content == body
    assert client.post(BATCH, content=body).status_code == 400
    assert client.post(COVERED + "/", content=body).url.path == COVERED  # starlette sends it there


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

        middleware = RefuseMisplacedSteering(route, covered=frozenset())
        await middleware({"type": "http", "method": "POST", "path": ELSEWHERE}, receive, send)

    asyncio.run(ask())
    assert seen == came


async def transcribe(socket: WebSocket) -> None:
    await socket.accept()
    with suppress(WebSocketDisconnect):
        while True:
            await socket.send_text(await socket.receive_text())


@pytest.fixture(scope="module")
def listening() -> TestClient:
    app = Starlette(routes=[WebSocketRoute("/v1/realtime", transcribe)])
    app.add_middleware(RefuseMisplacedSteering, covered=frozenset({COVERED}))
    return TestClient(app)


@pytest.mark.parametrize(
    "data",
    [data for data in REFUSED if not {"messages", "input"} & data.keys()] + [{"session": {"steering": "polite"}}],
)
def test_a_message_over_a_websocket_that_asks_for_steering_ends_it(listening: TestClient, data: Any) -> None:
    with listening.websocket_connect("/v1/realtime") as socket:
        socket.send_json({"type": "session.update", "model": "m", **data})
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_text()
    assert caught.value.code == 1008
    assert "steering" in caught.value.reason


def test_other_messages_over_a_websocket_arrive_unchanged(listening: TestClient) -> None:
    with listening.websocket_connect("/v1/realtime?trace=steering") as socket:
        for text in (
            "",
            "no JSON",
            '{"type": "session.update", "model": "steering"}',
            '{"audio": "' + "A" * 100_000 + '"}',
        ):
            socket.send_text(text)
            assert socket.receive_text() == text


def test_a_websocket_that_is_opened_with_steering_is_refused(listening: TestClient) -> None:
    for path, headers in (("/v1/realtime?steering=x", {}), ("/v1/realtime", {"X-Steering-Profile": "x"})):
        with pytest.raises(WebSocketDisconnect) as caught, listening.websocket_connect(path, headers=headers):
            raise AssertionError("it was accepted")
        assert caught.value.code == 1008
