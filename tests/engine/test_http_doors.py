"""Every door of the server steers alike, and says so alike; the rest refuse."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import httpx
import pytest

from tests.engine.asking import Answer, Ask, caption
from tests.engine.engine import Engine
from tests.engine.server import CHAT, MODEL_NAME, Server
from trimtab.plugin.http.routes import BATCH, COMPLETIONS, INVOCATIONS, MESSAGES, RESPONSES, STEERED
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

QUESTION = "describe the picture."
TURNS = [{"role": "user", "content": QUESTION}]
LENGTH = 8
NAMES = ("coarse-middle-all", "coarse-last-all")
STEERING = [{"profile": NAMES[0], "alpha": -2}, {"profile": NAMES[1], "alpha": 2}]
ONE: dict[str, Any] = {"profile": NAMES[0], "alpha": -2.0}


@pytest.fixture(scope="module")
def answers(engine: Engine) -> dict[str, Answer]:
    """What `LLM.chat` answers: to the question unsteered, with both profiles, and with one."""
    asks = {"plain": None, "both": STEERING, "one": ONE}
    found = engine.ask_alone([Ask(QUESTION, steering=steering, max_tokens=LENGTH) for steering in asks.values()])
    told = dict(zip(asks, found, strict=True))
    assert len({answer.text for answer in told.values()}) == 3
    return told


class Reply(NamedTuple):
    """texts: of all of its choices. steering: the object of its body, or of its first event."""

    texts: list[str]
    steering: Any
    headers: dict[str, str]


def fields(path: str, prompt: list[int]) -> dict[str, Any]:
    """The question, as a route takes it."""
    return {
        CHAT: {"messages": TURNS, "max_tokens": LENGTH},
        BATCH: {"messages": [TURNS, TURNS], "max_tokens": LENGTH},
        COMPLETIONS: {"prompt": [prompt, prompt], "max_tokens": LENGTH},
        RESPONSES: {"input": QUESTION, "max_output_tokens": LENGTH},
        MESSAGES: {"messages": TURNS, "max_tokens": LENGTH},
        INVOCATIONS: {"messages": TURNS, "max_tokens": LENGTH},
    }[path]


def asked(server: Server, path: str, prompt: list[int], **more: Any) -> Reply:
    return reply_of(path, server.http.post(path, json=body_of(path, prompt, **more)))


def body_of(path: str, prompt: list[int], **more: Any) -> dict[str, Any]:
    return {"model": MODEL_NAME, "temperature": 0, **fields(path, prompt), **more}


def reply_of(path: str, reply: httpx.Response) -> Reply:
    assert reply.status_code == 200, reply.text
    headers = {name: value for name, value in reply.headers.items() if name.startswith("x-steering")}
    if reply.headers["content-type"].startswith("text/event-stream"):
        events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
        first = events[0]
        told = first["response"]["steering"] if path == RESPONSES else first["steering"]
        assert not any("steering" in event for event in events[1:])
        return Reply([streamed(path, events)], told, headers)
    body = reply.json()
    return Reply(texts(path, body), body["steering"], headers)


def texts(path: str, body: dict[str, Any]) -> list[str]:
    if path == RESPONSES:
        return [part["text"] for item in body["output"] for part in item["content"]]
    if path == MESSAGES:
        return [part["text"] for part in body["content"]]
    return [choice["text"] if path == COMPLETIONS else choice["message"]["content"] for choice in body["choices"]]


def streamed(path: str, events: list[dict[str, Any]]) -> str:
    if path == RESPONSES:
        return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    if path == MESSAGES:
        return "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    choices = [choice for event in events for choice in event["choices"] if choice["index"] == 0]
    return "".join((c["text"] if path == COMPLETIONS else c["delta"].get("content")) or "" for c in choices)


def check_told(reply: Reply, profiles: list[str], alphas: list[float], registry: Registry) -> None:
    digests = [registry[name].digest for name in profiles]
    if not profiles:
        assert (reply.steering, reply.headers) == ({"profile": "none"}, {"x-steering-profile": "none"})
        return
    columns: dict[str, list[Any]] = {"profile": profiles, "alpha": alphas, "digest": digests}
    single = len(profiles) == 1
    assert reply.steering == {name: column[0] if single else column for name, column in columns.items()}
    assert reply.headers == {
        "x-steering-profile": ", ".join(profiles),
        "x-steering-alpha": ", ".join(map(repr, alphas)),
        "x-steering-digest": ", ".join(digests),
    }


@pytest.mark.parametrize("path", sorted(STEERED))
def test_a_door_steers_as_llm_does_and_says_so(
    server: Server, registry: Registry, answers: dict[str, Answer], path: str
) -> None:
    prompt = answers["plain"].prompt
    plain = asked(server, path, prompt)
    both = asked(server, path, prompt, steering=STEERING)
    assert set(plain.texts) == {answers["plain"].text}
    assert set(both.texts) == {answers["both"].text}
    assert len(both.texts) == (2 if path in (BATCH, COMPLETIONS) else 1)
    check_told(plain, [], [], registry)
    check_told(both, list(NAMES), [-2.0, 2.0], registry)
    named = asked(server, path, prompt, model=f"{MODEL_NAME}:{ONE['profile']}@{ONE['alpha']}")
    assert set(named.texts) == {answers["one"].text}
    check_told(named, [NAMES[0]], [-2.0], registry)


@pytest.mark.parametrize("path", sorted(STEERED - {BATCH}))
def test_a_streaming_door_says_the_same_in_headers_and_its_first_event(
    server: Server, registry: Registry, answers: dict[str, Answer], path: str
) -> None:
    prompt = answers["plain"].prompt
    plain, one, both = (
        asked(server, path, prompt, stream=True, steering=steering) for steering in (None, ONE, STEERING)
    )
    assert [plain.texts, one.texts, both.texts] == [[answers[name].text] for name in ("plain", "one", "both")]
    check_told(plain, [], [], registry)
    check_told(one, [NAMES[0]], [-2.0], registry)
    check_told(both, list(NAMES), [-2.0, 2.0], registry)


@pytest.mark.parametrize("path", sorted(STEERED))
@pytest.mark.parametrize("stream", [False, True])
def test_a_door_refuses_before_the_status_line(
    server: Server, answers: dict[str, Answer], path: str, stream: bool
) -> None:
    ask = {
        "model": MODEL_NAME,
        **fields(path, answers["plain"].prompt),
        **({} if path == BATCH else {"stream": stream}),
    }
    for steering, says in (
        ("coarse-last-al", "did you mean"),
        ({"profile": NAMES[0], "alpha": 99}, "alpha is 99"),
        ("coarse-last-image", "send it with a picture"),
    ):
        reply = server.http.post(path, json={**ask, "steering": steering})
        assert reply.status_code == 400, reply.text
        assert says in reply.text
        assert not [name for name in reply.headers if name.startswith("x-steering")]
    reply = server.http.post(path, json={**ask, "model": f"{MODEL_NAME}:coarse-last-al"})
    assert (reply.status_code, "did you mean" in reply.text) == (404, True)
    reply = server.http.post(path, json={**ask, "model": f"{MODEL_NAME}:{NAMES[0]}", "steering": NAMES[1]})
    assert (reply.status_code, "ask in one of the two" in reply.text) == (400, True)


def test_several_choices_of_one_chat_are_told_once(server: Server, registry: Registry) -> None:
    for stream in (False, True):
        reply = asked(server, CHAT, [], n=2, temperature=1, steering=ONE, stream=stream)
        check_told(reply, [NAMES[0]], [-2.0], registry)


def test_a_request_with_tools_is_told(server: Server, registry: Registry) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    for stream in (False, True):
        reply = server.http.post(
            CHAT,
            json={
                **{"model": MODEL_NAME, "messages": TURNS, "max_tokens": LENGTH, "stream": stream},
                **{"tools": [tool], "tool_choice": "none", "steering": ONE},
            },
        )
        assert reply.status_code == 200, reply.text
        first = next(line for line in reply.text.splitlines() if "{" in line).removeprefix("data: ")
        assert (
            json.loads(first)["steering"]["digest"] == reply.headers["x-steering-digest"] == registry[NAMES[0]].digest
        )


def test_a_response_does_not_inherit_the_steering_of_the_one_before(
    server: Server, registry: Registry, answers: dict[str, Answer]
) -> None:
    first = server.http.post(RESPONSES, json={"model": MODEL_NAME, **fields(RESPONSES, []), "steering": ONE}).json()
    after = {"model": MODEL_NAME, **fields(RESPONSES, []), "previous_response_id": first["id"]}
    second = server.http.post(RESPONSES, json=after)
    assert (second.status_code, second.headers["x-steering-profile"]) == (200, "none")
    assert second.json()["steering"] == {"profile": "none"}
    # What was stored is told again.
    stored = server.http.get(f"{RESPONSES}/{first['id']}").json()
    assert stored["steering"] == first["steering"] == {**ONE, "digest": registry[NAMES[0]].digest}


def test_every_prompt_of_a_request_is_counted(server: Server, answers: dict[str, Answer]) -> None:
    before = server.counted()
    asked(server, COMPLETIONS, answers["plain"].prompt, steering=ONE)
    asked(server, BATCH, [])
    after = server.counted()
    changed = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert changed == {NAMES[0]: 2, "none": 2}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generative_scoring", {"query": "who?", "items": ["yes"], "label_token_ids": [5, 6]}),
        ("/v1/systemone", {"state": "x", "questions": {}}),
    ],
)
def test_a_door_that_cannot_steer_refuses_to(server: Server, path: str, body: dict[str, Any]) -> None:
    reply = server.http.post(path, json={**body, "steering": ONE})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "steering")


def test_scoring_refuses_a_models_name_with_a_profile(server: Server) -> None:
    body = {"query": "who?", "items": ["yes"], "label_token_ids": [5, 6]}
    assert server.http.post("/generative_scoring", json={"model": MODEL_NAME, **body}).status_code == 200
    reply = server.http.post("/generative_scoring", json={"model": f"{MODEL_NAME}:{NAMES[0]}", **body})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")


def test_a_models_card_names_what_steers(server: Server, registry: Registry) -> None:
    cards = {card.id: card for card in server.openai.models.list()}
    assert list(cards) == [MODEL_NAME, *(f"{MODEL_NAME}:{name}" for name in registry.names)]
    card = cards[f"{MODEL_NAME}:{NAMES[0]}"].model_dump()
    assert (card["parent"], card["root"]) == (MODEL_NAME, MODEL_NAME)
    assert card["steering"]["digest"] == registry[NAMES[0]].digest
    reply = server.openai.chat.completions.create(model=card["id"], messages=TURNS, max_tokens=2)  # type: ignore[arg-type]
    assert reply.model_extra is not None
    assert reply.model_extra["steering"] == card["steering"]


def test_a_page_of_another_origin_may_read_what_was_served(server: Server) -> None:
    reply = server.chat(caption(2, max_tokens=2, steering=ONE), headers={"Origin": "https://example.org"})
    assert "X-Steering-Digest" in reply.headers["Access-Control-Expose-Headers"]
