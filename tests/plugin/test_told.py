"""Headers and body say what was decided, alike on every route that steers, and nothing else of an answer changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest, ResponsesResponse
from vllm.sampling_params import SamplingParams

from trimtab.plugin.http import told
from trimtab.plugin.http.routes import CHAT, RESPONSES, STEERED
from trimtab.plugin.http.told import SayWhatWasServed
from trimtab.plugin.requests import decided
from trimtab.plugin.requests.request import choose
from trimtab.vectors import Registry
from trimtab.vectors.asked import parse, wish_of

ANSWER = {"id": "1", "choices": [{"text": "é"}]}
ASKED: list[tuple[Any, Any, dict[str, str]]] = [
    (
        {"profile": "polite", "alpha": 0.8},
        {"profile": "polite", "alpha": 0.8},
        {"x-steering-profile": "polite", "x-steering-alpha": "0.8"},
    ),
    (
        ["polite", {"profile": "brief", "alpha": 2}],
        {"profile": ["polite", "brief"], "alpha": [0.5, 2.0]},
        {"x-steering-profile": "polite, brief", "x-steering-alpha": "0.5, 2.0"},
    ),
    ("none", {"profile": "none"}, {"x-steering-profile": "none"}),
    (None, {"profile": "none"}, {"x-steering-profile": "none"}),
]


def decide(asked: Any, registry: Registry) -> None:
    """As admission does."""
    decided.once(wish_of(asked), lambda: choose(parse(asked), registry))


@pytest.fixture
def client(registry: Registry) -> TestClient:
    """Routes that pass admission as vLLM's do, early or late, and answer as vLLM's do."""

    async def events(asked: Any, late: bool) -> AsyncIterator[str]:
        if late:
            decide(asked, registry)
        yield ": keep-alive\n\n"
        for number in range(2):
            yield f"data: {json.dumps({**ANSWER, 'number': number})}\n\n"
        yield "data: [DONE]\n\n"

    async def answer(request: Request) -> Response:
        body = await request.json()
        how, asked = body["how"], body.get("steering")
        if how == "refused":
            return JSONResponse({"error": {}}, 400)
        if how != "late":
            decide(asked, registry)
        if how in ("stream", "late"):
            return StreamingResponse(events(asked, how == "late"), media_type="text/event-stream")
        return {
            "json": JSONResponse(ANSWER),
            "empty": JSONResponse({}),
            "list": JSONResponse([1]),
            "text": PlainTextResponse("{text"),
        }[how]

    paths = [*STEERED, "/elsewhere"]
    app = Starlette(routes=[Route(path, answer, methods=["POST", "GET"]) for path in paths])
    app.add_middleware(SayWhatWasServed)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])  # around ours, as vLLM's is
    return TestClient(app)


def with_digests(found: dict[str, Any], registry: Registry) -> dict[str, Any]:
    if found["profile"] == "none":
        return found
    names = found["profile"]
    digests = registry[names].digest if isinstance(names, str) else [registry[name].digest for name in names]
    return {**found, "digest": digests}


def said_in_headers(answer: Any) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("x-steering")}


@pytest.mark.parametrize("path", sorted(STEERED - {RESPONSES}))
@pytest.mark.parametrize(("asked", "body", "headers"), ASKED)
def test_a_json_answer_says_it_in_headers_and_body(
    client: TestClient, registry: Registry, path: str, asked: Any, body: Any, headers: dict[str, str]
) -> None:
    answer = client.post(path, json={"how": "json", "steering": asked})
    said = with_digests(body, registry)
    assert answer.json() == {"steering": said, **ANSWER}
    digests = said.get("digest", [])
    if digests:
        headers = {**headers, "x-steering-digest": digests if isinstance(digests, str) else ", ".join(digests)}
    assert said_in_headers(answer) == headers
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize("how", ["stream", "late"])
@pytest.mark.parametrize(("asked", "body", "headers"), ASKED)
def test_a_stream_says_it_in_headers_and_its_first_event(
    client: TestClient, registry: Registry, how: str, asked: Any, body: Any, headers: dict[str, str]
) -> None:
    answer = client.post(CHAT, json={"how": how, "steering": asked})
    keep_alive, *events, done, _ = answer.text.split("\n\n")
    first, second = (json.loads(event.removeprefix("data: ")) for event in events)
    assert first == {"steering": with_digests(body, registry), **ANSWER, "number": 0}
    assert second == {**ANSWER, "number": 1}
    assert (keep_alive, done) == (": keep-alive", "data: [DONE]")
    assert headers.items() <= said_in_headers(answer).items()


def test_what_is_no_object_stays_as_it_is_beside_its_headers(client: TestClient) -> None:
    for how, body in (("list", b"[1]"), ("empty", b'{"steering": {"profile": "none"}}')):
        answer = client.post(CHAT, json={"how": how})
        assert (answer.content, said_in_headers(answer)) == (body, {"x-steering-profile": "none"})


def test_refusals_other_methods_and_other_routes_are_left_alone(client: TestClient) -> None:
    refused = client.post(CHAT, json={"how": "refused", "steering": "polite"})
    assert (refused.status_code, refused.json(), said_in_headers(refused)) == (400, {"error": {}}, {})
    elsewhere = client.post("/elsewhere", json={"how": "json"})
    other = client.request("GET", CHAT, json={"how": "json"})
    for answer in (elsewhere, other):
        assert (answer.json(), said_in_headers(answer)) == (ANSWER, {})


def test_a_page_of_another_origin_may_read_the_headers(client: TestClient) -> None:
    there = client.post(CHAT, json={"how": "json"}, headers={"Origin": "https://example.org"})
    exposed = {name.strip().lower() for name in there.headers["access-control-expose-headers"].split(",")}
    said = ("profile", "alpha", "digest", "exposure", "experiment", "variation")
    assert exposed == {f"x-steering-{name}" for name in said}
    assert "access-control-expose-headers" not in client.post(CHAT, json={"how": "json"}).headers


def test_a_response_object_says_it_inside(registry: Registry, client: TestClient) -> None:
    told.install()
    request = ResponsesRequest.model_validate({"model": "m", "input": "x"})

    def made() -> dict[str, Any]:
        found = ResponsesResponse.from_request(
            request, SamplingParams(max_tokens=1), "m", 0, [], "completed", usage=None
        )
        return dict(found.model_dump(mode="json", by_alias=True))

    with decided.deciding():
        decide("polite", registry)
        assert made()["steering"] == {"profile": "polite", "alpha": 0.5, "digest": registry["polite"].digest}
    assert "steering" not in made()
    answer = client.post(RESPONSES, json={"how": "json", "steering": "polite"})
    assert (answer.json(), answer.headers["x-steering-profile"]) == (ANSWER, "polite")
