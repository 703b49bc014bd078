"""Envoy with the configuration that ships, in front of two servers that say what reached them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.routed import ENVOY, Heard, Replica, envoy, envoy_program, two_replicas, until
from trimtab.plugin.http.routes import CHAT, INVOCATIONS, ROUTES, STEERED

# Beside the routes that steer: those that only tell something.
TELLING = {
    "/v1/messages/count_tokens": "POST",
    "/v1/models": "GET",
    "/v1/steering/profiles": "GET",
    "/v1/steering/profiles/{name}": "GET",
    "/v1/steering/experiments": "GET",
}
OPEN = {**dict.fromkeys(STEERED - {INVOCATIONS}, "POST"), **TELLING}


@pytest.fixture(scope="module")
def replicas() -> Iterator[list[Replica]]:
    with two_replicas() as made:
        yield made


@pytest.fixture(scope="module")
def way_in(replicas: list[Replica], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    ports = [one.server_port for one in replicas]
    with envoy(tmp_path_factory.mktemp("envoy"), ports) as url, httpx.Client(base_url=url, timeout=30) as client:
        until(lambda: client.get("/v1/models").status_code == 200)
        yield client


@pytest.fixture
def heard(replicas: list[Replica]) -> Callable[[], list[Heard]]:
    for one in replicas:
        one.heard.clear()
    return lambda: [request for one in replicas for request in one.heard]


def test_envoy_takes_the_configuration() -> None:
    words = [envoy_program(), "--mode", "validate", "--config-path", str(ENVOY)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_the_listed_routes_and_methods_reach_a_replica(
    way_in: httpx.Client, heard: Callable[[], list[Heard]]
) -> None:
    passed = set()
    for path in [*ROUTES, "/", "/v1/chat/completions/", "/V1/models", "/v1/steering/profiles/a/b"]:
        for method in ("GET", "POST", "DELETE"):
            spelled = re.sub(r"\{\w+\}", "x-1", path)
            reply = way_in.request(method, spelled, content=b"{}" if method == "POST" else None)
            if reply.status_code == 200:
                passed.add((method, path))
            else:
                assert (reply.status_code, reply.json()["error"]["code"]) == (404, 404), (method, path)
    named = {("GET", path) for path in ROUTES if re.fullmatch("/v1/steering/profiles/[a-z]+", path)}
    assert passed - named == {(method, path) for path, method in OPEN.items()}
    assert len(heard()) == len(passed)  # what was refused reached nobody


def test_odd_spellings_of_a_closed_route_do_not_reach_it(
    way_in: httpx.Client, heard: Callable[[], list[Heard]]
) -> None:
    for path in (
        "/invocations?x=/v1/completions",
        "/v1/completions/../../invocations",
        "/v1/completions/..%2f..%2finvocations",
        "//invocations",
        "/v1/models%2f..%2f..%2fmetrics",
        "/v1/steering/profiles/stage/",
    ):
        raw = httpx.URL(way_in.base_url, raw_path=path.encode())
        assert way_in.post(raw, content=b"{}").status_code in (400, 404), path
    assert not heard()


def test_a_request_arrives_as_it_was_sent_but_without_an_admin_key(
    way_in: httpx.Client, heard: Callable[[], list[Heard]]
) -> None:
    body = b'{"steering": {"profile": "polite", "alpha": 0.1000000000000000055},  "a": 1, "a": 2}'
    sent = {"Authorization": "Bearer k", "X-Session-ID": "u 1", "X-Consumer": "team-a", "X-Steering-Admin-Key": "k"}
    reply = way_in.post(CHAT, content=body, headers={**sent, "Content-Type": "application/json"})
    assert reply.headers["X-Steering-Profile"] == "polite"
    (one,) = heard()
    assert (one.method, one.path, one.body) == ("POST", CHAT, body)
    assert {name: one.headers.get(name.lower()) for name in sent} == {**sent, "X-Steering-Admin-Key": None}


def test_a_session_stays_with_a_replica_and_sessions_are_spread(way_in: httpx.Client) -> None:
    def asked(session: int) -> str:
        return way_in.post(CHAT, content=b"{}", headers={"X-Session-ID": f"unit-{session}"}).text

    first = [asked(session) for session in range(40)]
    assert [asked(session) for session in range(40)] == first
    assert set(first) == {"0", "1"}


def test_what_a_replica_has_begun_is_not_sent_again(way_in: httpx.Client, heard: Callable[[], list[Heard]]) -> None:
    assert way_in.post(CHAT, content=b"{}", headers={"X-Fail": "1"}).status_code == 500
    assert len(heard()) == 1


def test_an_unready_replica_gets_nothing_and_no_replica_at_all_is_an_error(
    way_in: httpx.Client, replicas: list[Replica]
) -> None:
    def asked() -> set[str]:
        replies = [way_in.post(CHAT, content=json.dumps({"n": number}).encode()) for number in range(20)]
        return {reply.text if reply.status_code == 200 else str(reply.status_code) for reply in replies}

    try:
        replicas[0].ready = False
        until(lambda: asked() == {"1"})
        replicas[1].ready = False
        until(lambda: asked() == {"503"})
    finally:
        for one in replicas:
            one.ready = True
    until(lambda: asked() == {"0", "1"})


def test_the_page_lists_the_open_routes() -> None:
    page = (Path(__file__).parents[1] / "docs" / "routers.md").read_text()
    assert all(f"`{path}`" in page for path in OPEN)
