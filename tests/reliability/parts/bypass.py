"""Ten thousand requests that try to get an answer without the enforced profile, over every door.

The enforced profile makes the model say one word and no other, so an answer shows by itself whether it acted.

attempts: requests sent. refused: 4xx. served: those that were answered, all with the enforced profile: by their words,
except where a field was sent that works on the words itself (docs/policy.md, "What it cannot do"), and by their body
and headers. bypassed: answers without it: none. errors: 5xx: none.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, given, seed, settings
from tqdm import tqdm

from tests.reliability.answers import said
from tests.reliability.attempts import Attempt, attempts
from tests.reliability.served import Shared, policy, shared
from tests.reliability.words import HELD, WORDS
from trimtab.plugin.http.routes import RESPONSES

WHOLE = 10_000
_AT_ONCE = 12
_CHUNK = 500
_SHOWN = 20
_ALL = list(HealthCheck)


def run(work: Path, share: float) -> dict[str, Any]:
    server = shared(work)
    server.govern(policy())
    return attack(server, round(WHOLE * share))


def attack(server: Shared, count: int) -> dict[str, Any]:
    """Make that many attempts at a server, whatever its policy enforces."""
    digest = server.registry[HELD].digest
    tally, by_route, wrong = Counter[str](), Counter[str](), []
    with ThreadPoolExecutor(_AT_ONCE) as pool, tqdm(total=count, desc="bypass", mininterval=5) as bar:
        for some in _made_up(count):
            for attempt, reply in zip(some, pool.map(lambda one: _send(server, one), some), strict=True):
                kind = _judge(attempt, reply, digest)
                tally[kind] += 1
                by_route[attempt.path] += 1
                if kind in ("bypassed", "errors"):
                    sent = json.dumps(attempt.body)[:400]
                    wrong.append(
                        f"{kind}: {attempt.path} {attempt.headers} {sent}: {reply.status_code} {reply.text[:300]}"
                    )
            bar.update(len(some))
    kinds = ("refused", "served", "bypassed", "errors")
    figures = {kind: tally[kind] for kind in kinds}
    wrong += [] if server.ready().status_code == 200 else ["the server is not ready afterwards"]
    return {"attempts": tally.total(), **figures, "routes": dict(by_route), "wrong": wrong[:_SHOWN]}


def _made_up(count: int) -> Iterator[list[Attempt]]:
    """At least `count` attempts, in lists."""
    number = 0
    while count > 0:
        found = _some(number, min(count, _CHUNK))
        yield found
        number, count = number + 1, count - len(found)


def _some(number: int, count: int) -> list[Attempt]:
    found: list[Attempt] = []

    @seed(number)
    @settings(max_examples=count, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=_ALL)
    @given(attempts())
    def collect(attempt: Attempt) -> None:
        found.append(attempt)

    collect()
    return found


def _send(server: Shared, attempt: Attempt) -> httpx.Response:
    headers = [("Content-Type", "application/json"), *attempt.headers]
    sent = [(name.encode(), value.encode()) for name, value in headers]
    reply = server.http.post(attempt.path, content=json.dumps(attempt.body), headers=sent)
    if attempt.path == RESPONSES and reply.status_code == 200 and not attempt.body.get("stream"):
        return _ended(server, reply)
    return reply


def _ended(server: Shared, reply: httpx.Response) -> httpx.Response:
    """The answer to a request that was to run in the background, with the headers of the first one."""
    last = reply
    while last.json()["status"] in ("queued", "in_progress"):
        time.sleep(0.1)
        last = server.http.get(f"{RESPONSES}/{reply.json()['id']}")
        last.headers.update({name: value for name, value in reply.headers.items() if name.startswith("x-steering")})
    return last


def _judge(attempt: Attempt, reply: httpx.Response, digest: str) -> str:
    if 400 <= reply.status_code < 500:
        return "refused"
    if reply.status_code != 200:
        return "errors"
    told = said(attempt.path, reply)
    acts = (HELD, 1.0, digest) in told.served and told.served == told.headers
    if attempt.plain and not attempt.body.get("echo"):
        acts &= bool(told.texts) and all(_spoken(attempt, text) for text in told.texts)
    return "served" if acts else "bypassed"


def _spoken(attempt: Attempt, text: str) -> bool:
    if attempt.body.get("continue_final_message") and text.startswith(attempt.prompt):
        text = text.removeprefix(attempt.prompt)
    return set(text.split()) == {WORDS[HELD]}
