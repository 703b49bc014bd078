"""Nothing is served unsteered because of a typo, or because a route does not know the field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.engine.asking import Ask, caption
from tests.engine.server import CHAT, MODEL_NAME, Server, body
from tests.engine.test_bad_input import BAD, NAME

pytestmark = pytest.mark.engine

TURNS = [{"role": "user", "content": "who is there?"}]
ELSEWHERE: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "who is there?", "max_tokens": 2},
    "/v1/responses": {"input": "who is there?", "max_output_tokens": 2},
    "/v1/messages": {"messages": TURNS, "max_tokens": 2},
    "/v1/chat/completions/batch": {"messages": [TURNS, TURNS], "max_tokens": 2},
    "/invocations": {"messages": TURNS, "max_tokens": 2},
}
# What else is sent beside a good request, and the field at fault.
TYPOS: dict[str, tuple[dict[str, Any], str]] = {
    "another case": ({"Steering": NAME}, "Steering"),
    "a shorter word": ({"steer": NAME}, "steer"),
    "a longer word": ({"steering_profile": NAME}, "steering_profile"),
    "vllm_xargs": ({"vllm_xargs": {"steering": NAME}}, "vllm_xargs.steering"),
    "vllm_xargs, the resolved form": ({"vllm_xargs": {"trimtab": "x"}}, "vllm_xargs.trimtab"),
    "another tool's vectors": ({"steering": {"vectors": [[1.0]]}}, "steering.vectors"),
    "a slip": ({"stearing": NAME}, "stearing"),
    "metadata": ({"metadata": {"steering": NAME}}, "metadata.steering"),
    "metadata, in a list": ({"metadata": {"of": [{"steering": NAME}]}}, "metadata.of[].steering"),
    "a message": ({"messages": [{**TURNS[0], "steering": NAME}]}, "messages[].steering"),
    "its parts": ({"profile": NAME}, "profile"),
    "its strength": ({"steering": NAME, "alpha": 1}, "alpha"),
}


def _error(reply: Any, param: str) -> str:
    """The message of a 400 in OpenAI's shape."""
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["param"], error["code"]) == (param, 400)
    assert error["type"]
    return str(error["message"])


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_400_that_names_the_field(server: Server, case: str) -> None:
    steering, param, says = BAD[case]
    # json.dumps writes NaN and Infinity, as careless clients do; httpx would refuse to.
    content = json.dumps(body(Ask("who?", steering=steering)))
    reply = server.http.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    assert says in _error(reply, param)


@pytest.mark.smoke
@pytest.mark.parametrize("case", TYPOS)
def test_a_misspelt_or_smuggled_field_is_a_400(server: Server, case: str) -> None:
    more, param = TYPOS[case]
    assert "steering" in _error(server.chat(Ask("who?"), **more), param)


@pytest.mark.parametrize("route", [CHAT, *ELSEWHERE])
def test_a_header_or_a_url_that_is_meant_to_steer_is_a_400(server: Server, route: str) -> None:
    plain = {"model": MODEL_NAME, "messages": TURNS, "max_tokens": 2, **ELSEWHERE.get(route, {})}
    reply = server.http.post(route, json=plain, headers={"X-Steering-Profile": NAME})
    assert "write the top-level field 'steering'" in _error(reply, "x-steering-profile")
    reply = server.http.post(route, json=plain, params={"steering": NAME})
    assert "is not taken from the URL" in _error(reply, "steering")
    reply = server.http.post(route, json=plain, headers={"X-Traffic-Steering": "eu"}, params={"trace": "steering"})
    assert reply.status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_what_the_prompt_has_no_positions_for_is_refused_before_the_status_line(server: Server, stream: bool) -> None:
    before = server.counted()
    reply = server.chat(Ask("who?", steering="coarse-last-image"), stream=stream)
    assert "send it with a picture" in _error(reply, "steering")
    assert not [name for name in reply.headers if name.startswith("x-steering")]
    assert server.counted() == before
    assert server.chat(caption(2, max_tokens=2, steering="coarse-last-image"), stream=stream).status_code == 200
    assert server.counted()["coarse-last-image"] == before["coarse-last-image"] + 1


def test_a_field_that_is_written_twice_is_a_400(server: Server) -> None:
    content = json.dumps(body(Ask("who?", steering=NAME)))[:-1] + ', "steering": null}'
    reply = server.http.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    assert "written twice" in _error(reply, "steering")


def test_a_hostile_body_for_a_route_that_does_not_read_it_stops_nobody(server: Server) -> None:
    reply = server.http.post("/health", content=b'{"\\u0041":[' + b"[],[]," * 1_000_000)
    assert reply.status_code == 405


def test_another_tools_vectors_are_answered_with_our_form(server: Server) -> None:
    assert '"steering": {"profile": "NAME", "alpha": 0.8}' in server.chat(
        Ask("who?"), steering={"vectors": []}
    ).text.replace("\\", "")


def test_beam_search_is_served_unsteered_only(server: Server) -> None:
    beams = {"use_beam_search": True, "n": 2}
    ask = caption(912, max_tokens=2)  # a new picture: the refusal must not keep it from the engine
    assert "beam search" in _error(server.chat(ask.steered(NAME), **beams), "steering")
    assert server.chat(ask.steered("none"), **beams).status_code == 200


@pytest.mark.parametrize("route", ELSEWHERE)
def test_a_slip_is_a_400_however_it_is_spelt(server: Server, route: str) -> None:
    spelt = json.dumps({"model": MODEL_NAME, **ELSEWHERE[route], "steers": NAME})
    for content in (spelt, spelt.replace('"steers"', r'"\u0073teers"')):
        reply = server.http.post(route, content=content, headers={"Content-Type": "application/json"})
        assert "did you mean 'steering'" in _error(reply, "steers")


@pytest.mark.parametrize("route", ELSEWHERE)
def test_the_word_in_a_text_is_no_field(server: Server, route: str) -> None:
    plain = json.dumps({"model": MODEL_NAME, **ELSEWHERE[route]})
    content = plain.replace("who is there?", r"\"steering\": \"x\"? \u0073teering?")
    reply = server.http.post(route, content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code == 200


def test_the_picture_of_a_refused_request_is_served_to_the_next_who_sends_it(server: Server) -> None:
    ask = caption(911)
    assert server.chat(ask.steered("no-such-profile")).status_code == 400
    assert server.text(ask) == server.text(ask) != ""


def test_the_server_steers_after_all_of_them(server: Server) -> None:
    ask = caption(1, max_tokens=3)
    for steering, _, _ in BAD.values():
        server.http.post(CHAT, content=json.dumps(body(ask.steered(steering))))
    assert server.text(ask.steered({"profile": "coarse-last-all", "alpha": 2})) != server.text(ask)
