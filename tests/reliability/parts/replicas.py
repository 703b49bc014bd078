"""Two replicas behind a router: a unit has one arm on both, and updates of profiles roll over them under load.

The router is vllm-router; Envoy, with the configuration that ships, is asked a few requests on each route.

units: of an experiment, each of which asks five times, by four routes. `round_robin` sends them to both replicas while
one of these is restarted; a tenth as many go through `consistent_hash`. two_arms: units with answers of two arms: none.
updates: new versions of a profile, each staged on both replicas and then activated, while requests for it come. mixed:
answers whose words are not those of the one version that they name: none. failed: requests without an answer, or with
another than 200: none. skewed: updates after which the metrics of the replicas did not show the same version: none.
requests_per_s: what came under the updates; 20 are sent where the machine keeps up.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeGuard

import httpx
from tqdm import tqdm

from tests.engine.server import CHAT
from tests.reliability.answers import said
from tests.reliability.parts.reload import is_mixed
from tests.reliability.replicated import ARMS, LIVE, Fleet, load, of_unit, post
from tests.reliability.served import asking, until
from tests.reliability.words import WORDS
from tests.routed import envoy, vllm_router
from trimtab.plugin.http.routes import COMPLETIONS, INVOCATIONS, MESSAGES, RESPONSES

UNITS = 2000
UPDATES = 50
PER_SECOND = 20
DOORS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, CHAT)
"""By which route a unit asks, one after the other."""
_LEAST_FOR_RESTART = 0.1  # a restart takes a minute, which a small share has not
_ENOUGH = 40  # units, of which some get each arm
_CLIENTS = 12


def run(work: Path, share: float) -> dict[str, Any]:
    home = work / "replicas"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    fleet = Fleet(home)
    try:
        return _run(fleet, home, share)
    finally:
        fleet.stop()


def _run(fleet: Fleet, home: Path, share: float) -> dict[str, Any]:
    units = max(20, round(UNITS * share))
    wrong: list[str] = []
    with vllm_router(home, fleet.urls, "--policy=round_robin") as url:
        until(lambda: _both_answer(url))
        with ThreadPoolExecutor(1) as aside:
            restarting = aside.submit(fleet.restart if share >= _LEAST_FOR_RESTART else _nothing)
            asked, two_arms = _ask_units(url, units, wrong, restarting)
            restarting.result()
        figures = _update(fleet, url, max(2, round(UPDATES * share)), wrong)
    with vllm_router(home, fleet.urls, "--policy=consistent_hash") as url:
        until(lambda: _both_answer(url))
        again = _ask_units(url, max(5, units // 10), wrong)
    with envoy(home, [int(one.http.base_url.port or 0) for one in fleet.replicas]) as url:
        until(lambda: httpx.get(f"{url}/v1/models").status_code == 200)
        through_envoy = _ask_units(url, 10, wrong)
        closed = httpx.post(f"{url}{INVOCATIONS}", json=of_unit(INVOCATIONS, 0)).status_code
        wrong += [] if closed == 404 else [f"Envoy answered {closed} on a route that is closed"]
    return {
        "units": units,
        "requests": asked + figures.pop("asked"),
        "two_arms": two_arms + again[1] + through_envoy[1],
        **figures,
        "failed": len([sentence for sentence in wrong if sentence.startswith("failed")]),
        "restarts": int(share >= _LEAST_FOR_RESTART),
        "envoy": through_envoy[0],
        "wrong": wrong[:20],
    }


def _nothing() -> None:
    """In place of a restart."""


def _both_answer(url: str) -> bool:
    with httpx.Client(base_url=url, timeout=600) as http:
        replies = [post(http, CHAT, of_unit(CHAT, 0)) for _ in range(4)]
    return all(_is_good(one) for one in replies)


def _ask_units(url: str, units: int, wrong: list[str], meanwhile: Future[None] | None = None) -> tuple[int, int]:
    """Each unit once by each route, round by round, and on while something goes on: requests, and units of two arms."""
    seen: dict[int, set[str]] = defaultdict(set)
    count = 0
    with httpx.Client(base_url=url, timeout=600) as http, ThreadPoolExecutor(_CLIENTS) as pool:

        def ask(unit: int, path: str) -> None:
            answer = post(http, path, of_unit(path, unit))
            if _is_good(answer):
                seen[unit] |= _arms(path, answer)
            else:
                wrong.append(_failure(path, answer))

        for path in DOORS:
            list(tqdm(pool.map(lambda unit, way=path: ask(unit, way), range(units)), path, units, mininterval=10))
            count += units
        while meanwhile is not None and not meanwhile.done():
            list(pool.map(lambda unit: ask(unit, CHAT), range(min(units, 50))))
            count += min(units, 50)
    two = [unit for unit, arms in seen.items() if len(arms) != 1]
    wrong += [f"unit {unit} has the arms {sorted(seen[unit])}" for unit in two]
    given = {arm for arms in seen.values() for arm in arms}
    wrong += ["not every arm was given"] if units >= _ENOUGH and given != set(ARMS) else []
    return count, len(two)


def _arms(path: str, answer: httpx.Response) -> set[str]:
    """The arm that an answer names, and those of its words."""
    told = {WORDS[profile]: arm for arm, profile in ARMS.items()}
    words = [word for text in said(path, answer).texts for word in text.split()]
    return {str(answer.json()["steering"]["variation"]), *(told.get(word, f"none: {word}") for word in words)}


def _update(fleet: Fleet, url: str, updates: int, wrong: list[str]) -> dict[str, Any]:
    words = {version.digest: word for word, version in fleet.versions.items()}
    made = list(fleet.versions.values())
    skewed, times = 0, []
    began = time.monotonic()
    with load(url, PER_SECOND, CHAT, lambda number: asking(CHAT, 2, steering=LIVE)) as came:
        for number in tqdm(range(updates), "updates", mininterval=10):
            changed = time.monotonic()
            skewed += not fleet.update(made[(number + 1) % len(made)])
            times.append(time.monotonic() - changed)
        seconds = time.monotonic() - began
        answered = len(came)
    good = [one for one in came if _is_good(one)]
    wrong += [_failure(CHAT, one) for one in came if not _is_good(one)]
    mixed = [one.text for one in good if is_mixed(one, words)]
    wrong += [f"mixed: {text[:300]}" for text in mixed]
    wrong += [f"after {skewed} updates the metrics differed"] if skewed else []
    versions = {one.headers["X-Steering-Digest"] for one in good}
    wrong += [] if len(versions) >= min(updates, len(made)) else ["not every version was seen by a request"]
    return {
        "asked": len(came),
        "updates": updates,
        "requests_per_s": round(answered / seconds, 1),
        "update_s": round(sorted(times)[len(times) // 2], 2),
        "mixed": len(mixed),
        "skewed": skewed,
        "skew": fleet.skew(),
    }


def _is_good(came: httpx.Response | httpx.TransportError) -> TypeGuard[httpx.Response]:
    return isinstance(came, httpx.Response) and came.status_code == 200


def _failure(path: str, came: httpx.Response | httpx.TransportError) -> str:
    told = f"{came.status_code} {came.text[:200]}" if isinstance(came, httpx.Response) else repr(came)
    return f"failed: {path}: {told}"
