"""Tool calls: the steering object and the headers say what they say of an answer in words.

The model knows no tools, so a grammar makes it write calls. A reasoning parser reads all answers of the server of
`test_policy` and `test_experiments`, and finds no thoughts in them: this model has no words for their marks, and vLLM
holds a grammar back until the thoughts have ended.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.engine.server import CHAT, MODEL_NAME, Server
from tests.engine.test_http_doors import TURNS, Reply, check_told
from trimtab.plugin.http.routes import RESPONSES
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

NAME = "coarse-last-all"
STEERINGS = {"unsteered": None, "steered": {"profile": NAME, "alpha": 2}}
SEEN = {"type": "object", "properties": {"seen": {"enum": ["yes", "no"]}}, "required": ["seen"]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SEEN}}
LENGTH = 6
NAMED: dict[str, dict[str, Any]] = {
    CHAT: {
        "messages": TURNS,
        "max_tokens": LENGTH,
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
    },
    RESPONSES: {
        "input": TURNS,
        "max_output_tokens": LENGTH,
        "tools": [{"type": "function", "name": "look", "parameters": SEEN}],
        "tool_choice": {"type": "function", "name": "look"},
    },
}


def asked(server: Server, path: str, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Headers of ours, and the bodies of an answer or of its events."""
    reply = server.http.post(path, json={"model": MODEL_NAME, "temperature": 0, **more})
    assert reply.status_code == 200, reply.text
    bodies = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith(("{", "data: {"))]
    headers = {name: value for name, value in reply.headers.items() if name.startswith("x-steering")}
    return headers, [json.loads(one) for one in bodies]


def check(registry: Registry, steering: str, headers: dict[str, str], steered: Any) -> None:
    told = Reply([], steered, headers)
    check_told(told, *(([], []) if STEERINGS[steering] is None else ([NAME], [2.0])), registry)


@pytest.mark.parametrize("steering", STEERINGS)
@pytest.mark.parametrize("path", NAMED)
def test_a_door_that_is_told_to_call_says_how_it_was_steered(
    server: Server, registry: Registry, path: str, steering: str
) -> None:
    headers, [whole] = asked(server, path, **NAMED[path], steering=STEERINGS[steering])
    check(registry, steering, headers, whole["steering"])
    headers, events = asked(server, path, **NAMED[path], steering=STEERINGS[steering], stream=True)
    first = events[0]["response"] if path == RESPONSES else events[0]
    check(registry, steering, headers, first["steering"])


@pytest.mark.parametrize("steering", STEERINGS)
def test_a_call_that_a_parser_reads_says_it_too(server: Server, registry: Registry, steering: str) -> None:
    call = {"tools": [TOOL], "structured_outputs": {"choice": ["[look(seen='yes')]"]}, "max_tokens": 60}
    more: dict[str, Any] = {"messages": TURNS, **call, "steering": STEERINGS[steering]}
    headers, [whole] = asked(server, CHAT, **more)
    check(registry, steering, headers, whole["steering"])
    [choice] = whole["choices"]
    [read] = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], read["function"]["name"]) == ("tool_calls", "look")
    assert json.loads(read["function"]["arguments"]) == {"seen": "yes"}
    headers, events = asked(server, CHAT, **more, stream=True)
    check(registry, steering, headers, events[0]["steering"])
    assert not any("steering" in event for event in events[1:])
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    parts = [part["function"] for delta in deltas for part in delta.get("tool_calls") or []]
    assert parts[0]["name"] == "look"
    assert json.loads("".join(part.get("arguments") or "" for part in parts)) == {"seen": "yes"}
