"""A thousand new versions of a profile under load: no request fails, and no answer is of two versions.

Each version makes the model say one word, so that the words of an answer say which version acted on each of its tokens.

count: versions brought, each staged and activated. requests, requests_per_s: what was asked meanwhile. failed: answers
other than 200: none. mixed: answers whose words are not those of the version that they name: none. late: requests after
a change was answered that still got the version before: none. p99_ms: of the time that a request took. alone_ms:
from the moment the files of a version are there until requests get it, on a server without load, median of 20.
reload_ms, reload_p99_ms: the same under the load.
memory_growth_mib: of all processes, from the first tenth of the versions to the last.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tqdm import tqdm

from tests.engine.server import CHAT
from tests.reliability.answers import said
from tests.reliability.parts.doors import OPEN
from tests.reliability.served import Shared, asking, policy, shared
from tests.reliability.words import WORDS
from trimtab.vectors import Profile, save_profile

WHOLE = 1000
LIVE = "live"
LENGTH = 4
_CLIENTS = 12
_ALONE = 20


@dataclass(frozen=True)
class Asked:
    """One request: its answer, and the seconds that it took."""

    reply: httpx.Response
    seconds: float


def run(work: Path, share: float) -> dict[str, Any]:
    server = shared(work)
    server.govern(OPEN)
    words = {version.digest: word for word, version in versions(server).items()}
    made = list(versions(server).values())
    count = round(WHOLE * share)
    bring(server, made[-1])
    try:
        found = _reload(server, made, words, count)
    finally:
        shutil.rmtree(server.profiles / LIVE)
        server.change("unload", LIVE)
        server.govern(policy())
    return found


def versions(server: Shared) -> dict[str, Profile]:
    """Versions of one profile, by the word that each makes the model say."""
    return {word: server.speech.profile(LIVE, word) for word in WORDS.values()}


def bring(server: Shared, version: Profile) -> float:
    """Let the server serve a version. Returns the seconds from its files to the answer that says so."""
    save_profile(version, server.profiles / LIVE, overwrite=True)
    began = time.monotonic()
    staged = server.change("stage", LIVE)
    active = server.change("activate", LIVE, digest=f"sha256:{version.digest}")
    if (staged.status_code, active.status_code) != (200, 200):
        raise RuntimeError(f"a version could not be brought: {staged.text} {active.text}")
    return time.monotonic() - began


def _reload(server: Shared, made: list[Profile], words: dict[str, str], count: int) -> dict[str, Any]:
    alone = [bring(server, made[number % len(made)]) for number in range(_ALONE)]
    times, late, memory = [], 0, 0
    began = time.monotonic()
    with asked(server) as replies:
        for number in tqdm(range(count), "reload", mininterval=5):
            version = made[number % len(made)]
            times.append(bring(server, version))
            late += server.http.post(CHAT, json=_body()).headers.get("X-Steering-Digest") != version.digest
            if number == count // 10:
                memory = server.resident()
    seconds, grown = time.monotonic() - began, server.resident() - memory
    failed = [one.reply for one in replies if one.reply.status_code != 200]
    mixed = [one.reply.text for one in replies if one.reply.status_code == 200 and is_mixed(one.reply, words)]
    figures = {
        "count": count,
        "requests": len(replies),
        "requests_per_s": round(len(replies) / seconds, 1),
        "failed": len(failed),
        "mixed": len(mixed),
        "late": late,
        "p99_ms": _milliseconds([one.seconds for one in replies], 99),
        "alone_ms": _milliseconds(alone, 50),
        "reload_ms": _milliseconds(times, 50),
        "reload_p99_ms": _milliseconds(times, 99),
        "memory_growth_mib": round(grown / 2**20, 1),
    }
    wrong = [f"{reply.status_code} {reply.text[:200]}" for reply in failed] + [f"mixed: {text[:300]}" for text in mixed]
    wrong += [f"{late} requests got an old version"] if late else []
    seen = {one.reply.headers.get("X-Steering-Digest") for one in replies}
    wrong += [] if seen == set(words) else ["not every version was seen by a request"]
    return {**figures, "wrong": wrong[:20]}


def is_mixed(reply: httpx.Response, words: dict[str, str]) -> bool:
    """Whether an answer says another word than that of the one version that it names. words: by digest."""
    told = said(CHAT, reply)
    spoken = [word for text in told.texts for word in text.split()]
    return told.served != told.headers or set(spoken) != {words[told.served[0][2]]}


@contextmanager
def asked(server: Shared) -> Iterator[list[Asked]]:
    """Several clients that ask without a pause for the profile, and what they were answered."""
    replies: list[Asked] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            began = time.monotonic()
            reply = server.http.post(CHAT, json=_body())
            replies.append(Asked(reply, time.monotonic() - began))

    with ThreadPoolExecutor(_CLIENTS) as pool:
        asking_now = [pool.submit(ask) for _ in range(_CLIENTS)]
        try:
            yield replies
        finally:
            ended.set()
        for one in asking_now:
            one.result()


def _body() -> dict[str, Any]:
    return asking(CHAT, LENGTH, steering=LIVE)


def _milliseconds(seconds: list[float], percentile: int) -> float:
    return round(1000 * float(np.percentile(seconds, percentile)), 1)
