"""What docs/routers.md says of vllm-router, tried in front of two servers that say what reached them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.routed import Heard, Replica, two_replicas, until, vllm_router
from trimtab.plugin.http.routes import BATCH, CHAT, COMPLETIONS, MESSAGES, RESPONSES

WISH = {"experiment": "doses", "unit": "unit 1"}
SENT = {"Authorization": "Bearer k", "X-Session-ID": "unit-1", "X-Consumer": "team-a"}


@pytest.fixture(scope="module")
def replicas() -> Iterator[list[Replica]]:
    with two_replicas() as made:
        yield made


@pytest.fixture(scope="module")
def way_in(replicas: list[Replica], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    urls = [f"http://127.0.0.1:{one.server_port}" for one in replicas]
    home = tmp_path_factory.mktemp("router")
    with (
        vllm_router(home, urls, "--policy=round_robin") as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        until(lambda: {ask(client).text for _ in range(4)} == {"0", "1"})
        yield client


@pytest.fixture
def heard(replicas: list[Replica]) -> Callable[[], list[Heard]]:
    for one in replicas:
        one.heard.clear()
    return lambda: [request for one in replicas for request in one.heard]


def ask(client: httpx.Client, path: str = CHAT, **headers: str) -> httpx.Response:
    turns = [{"role": "user", "content": "a question"}]
    contents: dict[str, dict[str, Any]] = {
        CHAT: {"messages": turns},
        BATCH: {"messages": [turns]},
        COMPLETIONS: {"prompt": "a question"},
        RESPONSES: {"input": "a question"},
        MESSAGES: {"messages": turns, "max_tokens": 2},
    }
    return client.post(path, json={"model": "m", "steering": WISH, **contents[path]}, headers=headers)


@pytest.mark.parametrize(
    ("path", "kept"), [(CHAT, True), (COMPLETIONS, True), (RESPONSES, False), (MESSAGES, False), (BATCH, False)]
)
def test_the_field_arrives_everywhere_and_who_asks_on_two_routes_only(
    way_in: httpx.Client, heard: Callable[[], list[Heard]], path: str, kept: bool
) -> None:
    reply = ask(way_in, path, **SENT)
    assert reply.status_code == 200
    assert reply.headers["X-Steering-Profile"] == "polite"
    (one,) = heard()
    assert json.loads(one.body)["steering"] == WISH
    assert {name: one.headers.get(name.lower()) for name in SENT} == (SENT if kept else dict.fromkeys(SENT))


def test_what_a_replica_answered_with_an_error_is_sent_again(
    way_in: httpx.Client, heard: Callable[[], list[Heard]]
) -> None:
    assert ask(way_in, **{"X-Fail": "1"}).status_code == 500
    assert len(heard()) > 1


def test_an_unready_replica_gets_nothing_until_it_is_ready_again(way_in: httpx.Client, replicas: list[Replica]) -> None:
    replicas[0].ready = False
    try:
        until(lambda: {ask(way_in).text for _ in range(6)} == {"1"})
    finally:
        replicas[0].ready = True
    until(lambda: {ask(way_in).text for _ in range(6)} == {"0", "1"})
