"""A server with an access policy: what it enforces acts on every door, and no door gives more than a key allows."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.engine.asking import Ask
from tests.engine.conftest import LAST
from tests.engine.engine import Engine
from tests.engine.governed import GATEWAY, HELD, KEY, OTHER, USUAL, carrying, key_of, until, written
from tests.engine.server import CHAT, MODEL_NAME, Server
from tests.engine.test_http_doors import LENGTH, QUESTION, TURNS, asked, check_told, fields
from trimtab.plugin.http.routes import BATCH, COMPLETIONS, RESPONSES, STEERED
from trimtab.vectors import Profile, Registry, SteeringVector, save_profile

pytestmark = pytest.mark.engine

REFUSED: dict[str, Any] = {
    "another profile": "yes-to-no",
    "a strength out of range": {**OTHER, "alpha": 1.5},
    "a weaker enforced one": {**HELD, "alpha": -1},
    "the opposite of what is enforced": {**HELD, "alpha": 2},
    "two, one of them another": [OTHER, "coarse-middle-answer"],
}


@pytest.fixture(scope="module")
def answers(engine: Engine) -> dict[str, Any]:
    """What an engine without a policy answers when it is asked for what the policy adds."""
    asks = {"plain": None, "usual": [USUAL, HELD], "held": HELD, "other": [OTHER, HELD], "usual alone": USUAL}
    found = engine.ask_alone([Ask(QUESTION, steering=wish, max_tokens=LENGTH) for wish in asks.values()])
    told = dict(zip(asks, found, strict=True))
    assert len({told[name].text for name in ("plain", "usual", "held")}) == 3
    return told


def names(*parts: dict[str, Any]) -> tuple[list[str], list[float]]:
    return [part["profile"] for part in parts], [float(part["alpha"]) for part in parts]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", sorted(STEERED))
def test_every_door_adds_what_everybody_gets(
    governed: Server, registry: Registry, answers: dict[str, Any], path: str, stream: bool
) -> None:
    prompt = answers["plain"].prompt
    more: dict[str, Any] = {"stream": True} if stream and path != BATCH else {}
    silent = asked(governed, path, prompt, **more)
    assert set(silent.texts) == {answers["usual"].text}
    check_told(silent, *names(USUAL, HELD), registry)
    with carrying(governed, **key_of(path)):
        told = asked(governed, path, prompt, steering="none", **more)
        assert set(told.texts) == {answers["held"].text}
        check_told(told, *names(HELD), registry)
        told = asked(governed, path, prompt, steering=OTHER, **more)
        assert set(told.texts) == {answers["other"].text}
        check_told(told, *names(OTHER, HELD), registry)


@pytest.mark.parametrize("path", sorted(STEERED))
def test_no_door_gives_more_than_a_key_allows(governed: Server, answers: dict[str, Any], path: str) -> None:
    body = {"model": MODEL_NAME, **fields(path, answers["plain"].prompt)}
    model = f"{MODEL_NAME}:{OTHER['profile']}"
    for stream in (False,) if path == BATCH else (False, True):
        more = {} if path == BATCH else {"stream": stream}
        tries: list[tuple[dict[str, str], dict[str, Any]]] = [
            *((key_of(path), {"steering": wish}) for wish in REFUSED.values()),
            ({}, {"steering": OTHER}),
            ({}, {"steering": "none"}),
            ({}, {"model": model}),
            (key_of(path, "of nobody"), {"steering": OTHER}),
            ({"x_consumer": "team-a"}, {"steering": OTHER}),
            ({**key_of(path, GATEWAY), "x_consumer": "somebody"}, {"steering": OTHER}),
        ]
        for headers, wish in tries:
            with carrying(governed, **headers):
                reply = governed.http.post(path, json={**body, **more, **wish})
            assert reply.status_code == 403, (headers, wish, reply.text)
            assert "access policy" in reply.text or "to every request" in reply.text
            assert not [name for name in reply.headers if name.startswith("x-steering")]
        with carrying(governed, **key_of(path, GATEWAY), x_consumer="team-a"):
            assert governed.http.post(path, json={**body, **more, "steering": OTHER}).status_code == 200


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_all_of_several_answers_get_it(
    governed: Server, registry: Registry, answers: dict[str, Any], path: str
) -> None:
    before = decisions(governed)
    told = asked(governed, path, answers["plain"].prompt, n=3, temperature=1, top_k=1)  # greedy, and several
    prompts = len(told.texts) // 3  # completions are asked two
    assert told.texts == [answers["usual"].text] * 3 * prompts
    check_told(told, *names(USUAL, HELD), registry)
    assert changed(before, decisions(governed)) == {("rule-3", "defaulted"): prompts}


def test_a_response_after_another_gets_it_too(governed: Server, registry: Registry) -> None:
    with carrying(governed, **key_of(RESPONSES)):
        first = governed.http.post(RESPONSES, json={"model": MODEL_NAME, **fields(RESPONSES, []), "steering": OTHER})
    after = {"model": MODEL_NAME, **fields(RESPONSES, []), "previous_response_id": first.json()["id"]}
    second = governed.http.post(RESPONSES, json=after)
    assert (second.status_code, second.headers["x-steering-profile"]) == (200, ", ".join(names(USUAL, HELD)[0]))


def test_beam_search_and_scoring_are_no_way_round(governed: Server) -> None:
    beams = {"model": MODEL_NAME, "messages": TURNS, "use_beam_search": True, "n": 2, "max_tokens": 2}
    reply = governed.http.post(CHAT, json=beams)
    assert (reply.status_code, "beam search" in reply.text) == (400, True)
    scores = {"model": MODEL_NAME, "query": "who?", "items": ["yes"], "label_token_ids": [5, 6]}
    before = decisions(governed)
    assert governed.http.post("/generative_scoring", json=scores).status_code == 200
    assert changed(before, decisions(governed)) == {("rule-3", "defaulted"): 1}


def decisions(server: Server) -> dict[tuple[str, str], float]:
    """`trimtab_decisions_total`, by rule and outcome."""
    found = {}
    for line in server.http.get("/metrics").text.splitlines():
        if line.startswith("trimtab_decisions_total{"):
            labels, _, value = line.partition("{")[2].partition("} ")
            told = dict(part.split("=") for part in labels.split(","))
            found[told["rule"].strip('"'), told["outcome"].strip('"')] = float(value)
    return found


def changed(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    grown = {cell: after[cell] - before.get(cell, 0) for cell in after}
    return {cell: count for cell, count in grown.items() if count}


def test_each_decision_is_counted_and_logged_once_and_no_key_is_anywhere(
    governed: Server, governed_home: Path, answers: dict[str, Any]
) -> None:
    before, log = decisions(governed), governed_home / "state" / "decisions.jsonl"
    time.sleep(0.5)  # what was decided before is written
    written_before = len(log.read_text().splitlines())
    asked(governed, COMPLETIONS, answers["plain"].prompt)  # of two prompts
    with carrying(governed, **key_of(CHAT)):
        asked(governed, CHAT, [], steering=OTHER)
        governed.http.post(CHAT, json={"model": MODEL_NAME, "messages": TURNS, "steering": "yes-to-no"})
    expected = {("rule-3", "defaulted"): 2, ("rule-1", "allowed"): 1, ("rule-1", "refused"): 1}
    assert changed(before, decisions(governed)) == expected
    assert until(lambda: len(log.read_text().splitlines()) >= written_before + 4)
    lines = [json.loads(line) for line in log.read_text().splitlines()][written_before:]
    assert [(line["subject"], line["outcome"]) for line in lines] == [
        (None, "defaulted"),
        (None, "defaulted"),
        ("team-a", "allowed"),
        ("team-a", "refused"),
    ]
    seen = log.read_text() + (governed_home / "server.log").read_text() + governed.http.get("/metrics").text
    assert KEY not in seen
    assert GATEWAY not in seen


def test_a_changed_policy_holds_without_a_restart_and_a_bad_one_changes_nothing(
    governed: Server, governed_home: Path, registry: Registry, answers: dict[str, Any]
) -> None:
    def ready() -> bool:
        return governed.http.get("/v1/steering/ready").status_code == 200

    def served_now() -> str:
        return str(governed.http.get("/v1/steering/ready").json()["policy"])

    assert ready()
    first = served_now()
    (governed_home / "policy.yaml").write_text(written(mode="dream"))
    assert until(lambda: not ready())
    assert "'enforce' or 'report'" in (governed_home / "server.log").read_text() or until(
        lambda: "'enforce' or 'report'" in (governed_home / "server.log").read_text()
    )
    assert served_now() == first
    assert asked(governed, CHAT, []).texts == [answers["usual"].text]
    (governed_home / "policy.yaml").write_text(written(mode="report"))
    assert until(ready)
    assert served_now() != first
    told = asked(governed, CHAT, [])
    assert told.texts == [answers["plain"].text]
    check_told(told, [], [], registry)
    before = decisions(governed)
    told = asked(governed, CHAT, [], steering=USUAL)
    assert told.texts == [answers["usual alone"].text]
    assert changed(before, decisions(governed)) == {("rule-3", "would_refuse"): 1}
    (governed_home / "policy.yaml").write_text(written())
    assert until(lambda: ready() and served_now() == first)
    assert asked(governed, CHAT, []).texts == [answers["usual"].text]


def test_profiles_at_a_url_are_followed(governed: Server, governed_home: Path, registry: Registry) -> None:
    shelf, name = governed_home / "shelf", "yes-to-no"

    def served_now() -> dict[str, str]:
        cards = governed.http.get("/v1/steering/profiles").json()["data"]
        return {card["id"]: card["digest"] for card in cards}

    before = {profile.name: profile.digest for profile in registry.values()}
    assert served_now() == before
    vector = registry["coarse-last-answer"].tensors[LAST].named["vector"]
    new = Profile.coarse(name, [SteeringVector(LAST, -vector)], model=registry[name].manifest.base_model)
    save_profile(new, shelf / name, overwrite=True)
    assert until(lambda: served_now() == {**before, name: new.digest})
    shutil.rmtree(shelf / name)
    assert until(lambda: name not in served_now())
    save_profile(registry[name], shelf / name)
    assert until(lambda: served_now() == before)
    assert str(shelf) not in governed.http.get("/v1/models").text
