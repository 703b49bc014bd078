"""The OpenAI-compatible API: `steering` chooses what is served, and the reply says what it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.engine.asking import Ask, caption, questions, yes_no
from tests.engine.engine import Engine
from tests.engine.server import CHAT, Server, body
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

NAME = "fine-last-answer"
ASKS = [
    caption(1, max_tokens=12, steering="coarse-last-answer"),
    caption(1, max_tokens=12),
    questions("number", 1)[0].steered({"profile": "fine-middle-all", "alpha": 0.5}),
    questions("other", 1)[0].steered(NAME),
    yes_no("yes", 1)[0].steered("yes-to-no"),
    yes_no("yes", 1)[0].steered("none"),
    Ask("who is there?", steering=[{"profile": "coarse-middle-answer", "alpha": -1}]),
    Ask("who is there?"),
    caption(1, max_tokens=12, steering=[{"profile": "coarse-middle-all", "alpha": -2}, "coarse-last-answer"]),
]


@pytest.fixture(scope="module")
def expected(engine: Engine) -> list[str]:
    """What `LLM.chat` answers."""
    return [answer.text for answer in engine.ask_alone(ASKS)]


@pytest.mark.smoke
def test_the_openai_client_gets_what_llm_chat_gives(server: Server, expected: list[str]) -> None:
    assert [server.text(ask) for ask in ASKS] == expected
    assert expected[0] != expected[1]
    assert expected[4] != expected[5]
    assert expected[8] != expected[1]


def test_concurrent_requests_get_what_they_get_alone(server: Server, expected: list[str]) -> None:
    bad = [caption(1, steering="coarse-last-answr"), caption(1, steering={"profile": NAME, "alpha": 99})]
    with ThreadPoolExecutor(10) as pool:
        refused = [pool.submit(server.chat, ask) for ask in bad]
        texts = list(pool.map(server.text, ASKS * 3))
    assert texts == expected * 3
    assert [reply.result().status_code for reply in refused] == [400, 400]


@pytest.mark.parametrize("ask", ASKS[:6])
def test_a_stream_says_what_the_whole_answer_says(server: Server, ask: Ask) -> None:
    stream = server.openai.chat.completions.create(
        **body(ask, steering=False), stream=True, extra_body={"steering": ask.steering}
    )
    parts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(parts) > 1
    assert "".join(parts) == server.text(ask)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("steering", "alpha"),
    [(NAME, "1.0"), ({"profile": NAME, "alpha": 0.8}, "0.8"), ([{"profile": NAME, "alpha": -2}], "-2.0")],
)
def test_headers_name_profile_alpha_and_digest(
    server: Server, registry: Registry, steering: Any, alpha: str, stream: bool
) -> None:
    reply = server.chat(caption(2, steering=steering), stream=stream)
    assert reply.status_code == 200
    assert reply.headers["X-Steering-Profile"] == NAME
    assert reply.headers["X-Steering-Alpha"] == alpha
    assert reply.headers["X-Steering-Digest"] == registry[NAME].digest


def test_headers_name_every_profile_of_a_request_in_its_order(server: Server, registry: Registry) -> None:
    reply = server.chat(caption(2, steering=["yes-to-no", {"profile": NAME, "alpha": 0.5}]))
    assert reply.headers["X-Steering-Profile"] == f"yes-to-no, {NAME}"
    assert reply.headers["X-Steering-Alpha"] == "1.0, 0.5"
    assert reply.headers["X-Steering-Digest"] == f"{registry['yes-to-no'].digest}, {registry[NAME].digest}"


@pytest.mark.parametrize("steering", [None, "none"])
def test_the_header_of_an_unsteered_answer_says_none(server: Server, steering: str | None) -> None:
    headers = server.chat(caption(2, steering=steering)).headers
    assert headers["X-Steering-Profile"] == "none"
    assert "X-Steering-Alpha" not in headers
    assert "X-Steering-Digest" not in headers


def test_null_asks_for_nothing(server: Server) -> None:
    reply = server.chat(caption(2), steering=None)
    assert (reply.status_code, reply.headers["X-Steering-Profile"]) == (200, "none")


@pytest.mark.smoke
def test_profiles_of_the_hub_are_listed(server: Server, registry: Registry) -> None:
    found = server.http.get("/v1/steering/profiles").json()
    assert found["object"] == "list"
    assert [card["id"] for card in found["data"]] == list(registry.names)
    assert {card["id"]: card["digest"] for card in found["data"]} == {p.name: p.digest for p in registry.values()}


def test_a_profile_is_shown_by_its_name(server: Server, registry: Registry) -> None:
    card = server.http.get(f"/v1/steering/profiles/{NAME}").json()
    assert card in server.http.get("/v1/steering/profiles").json()["data"]
    assert (card["kind"], card["layers"], card["positions"], card["kv"]) == ("fine", [5], "answer", "shared")
    assert card["alpha"] == {"default": 1.0, "min": -2.0, "max": 2.0}
    assert server.http.get("/v1/steering/profiles/coarse-middle-all").json()["kv"] == "keyed"


def test_an_unknown_profile_is_a_404_that_names_the_nearest(server: Server) -> None:
    reply = server.http.get("/v1/steering/profiles/fine-last-answr")
    assert reply.status_code == 404
    assert "did you mean 'fine-last-answer'?" in reply.json()["error"]["message"]


def test_requests_are_counted_by_registered_names_only(server: Server, registry: Registry) -> None:
    before = server.counted()
    assert set(before) == {"none", *registry.names}
    server.text(caption(3, steering=NAME))
    server.text(caption(3))
    server.chat(caption(3, steering="no-such-profile"))
    server.chat(caption(3, steering={"profile": NAME, "alpha": 99}))
    after = server.counted()
    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {NAME: 1, "none": 1}
    assert set(after) == set(before)
    assert "no-such-profile" not in server.http.get("/metrics").text


@pytest.mark.smoke
def test_the_schema_shows_the_field(server: Server) -> None:
    schema = server.http.get("/openapi.json").json()
    reference = schema["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    field = schema["components"]["schemas"][reference.rpartition("/")[2]]["properties"]["steering"]
    assert "profile" in str(field)
    assert "alpha" in str(field)
