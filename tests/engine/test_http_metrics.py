"""/metrics of a real server: what each profile got, to the token, whatever ended a request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.engine.counted import Numbers, grown, numbers
from tests.engine.server import CHAT, MODEL_NAME, Server
from tests.plugin.test_ops import EXPRESSIONS, asked
from trimtab.offline.experiments.ratios import METRICS as OF_LOGS
from trimtab.plugin.requests.refused import REASONS
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

ONE, OTHER = "coarse-last-all", "fine-last-answer"
TURNS = [{"role": "user", "content": "what color is the car?"}]


def of(name: str, profile: str, **more: str) -> tuple[str, ...]:
    who = {"arm": "", "experiment": "", "profile": profile, **more}
    return (name, *(f"{label}={word}" for label, word in sorted(who.items())))


def chat(server: Server, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    body = {"model": MODEL_NAME, "messages": TURNS, "temperature": 0, **fields}
    reply = server.http.post(CHAT, json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def test_tokens_are_those_of_the_answers_and_of_vllm(server: Server) -> None:
    before = numbers(server)
    replies = {
        ONE: chat(server, steering=ONE, max_tokens=4, ignore_eos=True),
        OTHER: chat(server, steering=OTHER, max_tokens=5, ignore_eos=True, n=3, temperature=1),
        "none": chat(server, max_tokens=3, ignore_eos=True),
    }
    change = grown(before, numbers(server))
    for name, reply in replies.items():
        usage = reply["usage"]
        assert change[of("trimtab_finished_total", name, reason="length")] == 1
        assert change[of("trimtab_prompt_tokens_total", name)] == usage["prompt_tokens"]
        assert change[of("trimtab_generated_tokens_total", name)] == usage["completion_tokens"]
        assert change[of("trimtab_time_to_first_token_seconds_count", name)] == 1
        assert change[of("trimtab_time_per_output_token_seconds_count", name)] == 1
    ours = sum(value for name, value in change.items() if name[0] == "trimtab_generated_tokens_total")
    vllms = sum(value for name, value in change.items() if name[0] == "vllm:generation_tokens_total")
    assert ours == vllms == 4 + 15 + 3


def test_cached_tokens_are_vllms(server: Server) -> None:
    turns = [{"role": "user", "content": "is there a dog in this picture or in any other one? " * 8}]
    chat(server, messages=turns, steering=ONE, max_tokens=1)
    before = numbers(server)
    chat(server, messages=turns, steering=ONE, max_tokens=1)
    change = grown(before, numbers(server))
    cached = change[of("trimtab_cached_tokens_total", ONE)]
    assert cached == sum(value for name, value in change.items() if name[0] == "vllm:prefix_cache_hits_total") > 0


def test_concepts_come_to_the_metrics_without_another_request(server: Server) -> None:
    """Of each profile with a gate, as many positions as tokens were generated: those of answers."""
    names = ("fine-last-answer", "watched")

    def positions(change: Numbers, name: str) -> float:
        of_concepts = [key for key in change if key[0] == "trimtab_concept_active_total" and f"profile={name}" in key]
        return sum(change[key] for key in of_concepts)

    before = numbers(server)
    for name in names:
        chat(server, steering=name, max_tokens=7, ignore_eos=True, n=2, temperature=1)
    chat(server, max_tokens=3, ignore_eos=True)
    assert eventually(lambda: positions(grown(before, numbers(server)), "watched") >= 14)
    change = grown(before, numbers(server))
    for name in names:
        assert positions(change, name) == change[of("trimtab_generated_tokens_total", name)] == 14


def test_two_requests_of_one_id_count_for_themselves(server: Server) -> None:
    """A client that sends the same X-Request-Id with all of its requests."""
    before, lengths = numbers(server), {ONE: 40, OTHER: 7, "none": 23}

    def ask(name: str) -> None:
        more = {} if name == "none" else {"steering": name}
        chat(server, {"X-Request-Id": "same"}, max_tokens=lengths[name], ignore_eos=True, **more)

    with ThreadPoolExecutor(len(lengths)) as pool:
        list(pool.map(ask, lengths))
    change = grown(before, numbers(server))
    assert {name: change[of("trimtab_generated_tokens_total", name)] for name in lengths} == lengths


def test_a_client_that_leaves_is_counted_as_an_abort(server: Server) -> None:
    before = numbers(server)
    body = {"model": MODEL_NAME, "messages": TURNS, "steering": ONE, "stream": True, "max_tokens": 200}
    with server.http.stream("POST", CHAT, json={**body, "ignore_eos": True}) as reply:
        next(reply.iter_lines())
    aborted = of("trimtab_finished_total", ONE, reason="abort")
    assert eventually(lambda: grown(before, numbers(server)).get(aborted) == 1)
    change = grown(before, numbers(server))
    assert sum(value for name, value in change.items() if name[0] == "trimtab_finished_total") == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"steering": "coarse-last-al"}, "unknown_profile"),
        ({"model": f"{MODEL_NAME}:coarse-last-al"}, "unknown_profile"),
        ({"steering": {"profile": ONE, "alpha": 99}}, "alpha"),
        ({"steering": 7}, "malformed"),
        ({"steeering": ONE}, "misplaced"),
        ({"vllm_xargs": {"steering": ONE}}, "misplaced"),
    ],
    ids=json.dumps,
)
def test_a_refusal_is_counted_once(server: Server, fields: dict[str, Any], reason: str) -> None:
    before = numbers(server)
    assert server.http.post(CHAT, json={"model": MODEL_NAME, "messages": TURNS, **fields}).status_code in (400, 404)
    change = grown(before, numbers(server))
    refused = {name: value for name, value in change.items() if name[0] == "trimtab_refusals_total"}
    assert refused == {("trimtab_refusals_total", f"reason={reason}"): 1}
    assert not any(name[0] in ("trimtab_requests_total", "trimtab_finished_total") for name in change)


def test_labels_are_names_of_profiles_and_fixed_words(server: Server, registry: Registry) -> None:
    server.http.post(CHAT, json={"model": MODEL_NAME, "messages": TURNS, "steering": "a-stranger"})
    known = {"profile": {"none", *registry}, "reason": {"stop", "length", "abort", "error", *REASONS}}
    for name, *labels in numbers(server):
        if name.startswith("trimtab_"):
            for label, _, word in (text.partition("=") for text in labels):
                assert label not in known or word in known[label], (name, label, word)


def test_versions_are_digests(server: Server, registry: Registry) -> None:
    found = numbers(server)
    for name, profile in registry.items():
        assert found["trimtab_profile_version", f"profile={name}"] == int(profile.digest[:12], 16)


def test_the_server_has_each_metric_that_the_board_and_the_alerts_ask_for(server: Server) -> None:
    there = {name for name, *_ in numbers(server)}
    wanted = {name for expression in EXPRESSIONS.values() for name, _ in asked(expression)} - OF_LOGS.keys()
    # Of a server with an access policy, and of one that rescans: see test_policy.py and tests/plugin/test_refresh.py.
    # A drift is shown after a thousand requests: see tests/plugin/test_concepts.py.
    assert wanted - there == {"trimtab_decisions_total", "trimtab_rescan_problems", "trimtab_concept_drift"}
