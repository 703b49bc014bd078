"""Two replicas with a desired state and an experiment, as a fleet has them, and clients that ask through a router."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.engine.counted import numbers
from tests.engine.server import Server
from tests.reliability.served import MODEL, READY, asking, until
from tests.reliability.words import WORDS, Speech
from trimtab.vectors import Profile, save_profile

LIVE = "live"
"""The profile that gets new versions."""
EXPERIMENT = "words"
ARMS = {"a": "say-arm", "b": "say-safe", "c": "say-tie"}
"""The profile of each arm: the words of an answer say which arm it is of."""
LOOKS = 0.5  # seconds between two looks of a replica at the desired state
_DRAIN = 6  # seconds; a router needs three health checks, one per second, to look elsewhere

_PLAN = {
    "version": 1,
    "layers": {"l": {"seed": "l-1"}},
    "experiments": {
        EXPERIMENT: {
            "layer": "l",
            "seed": "s-1",
            "coverage": 1,
            "arms": {arm: {"steering": name} for arm, name in ARMS.items()},
            "status": "running",
        }
    },
}


class Fleet:
    """Two replicas, and the files that both follow."""

    def __init__(self, home: Path) -> None:
        self.home, self._profiles, self._desired = home, home / "profiles", home / "desired.yaml"
        self.versions = {word: Speech(MODEL).profile(LIVE, word) for word in WORDS.values()}
        self._fixed = {name: Speech(MODEL).profile(name, WORDS[name]) for name in ARMS.values()}
        for name, profile in self._fixed.items():
            save_profile(profile, self._profiles / name)
        self.active = next(iter(self.versions.values()))
        save_profile(self.active, self._profiles / LIVE)
        (home / "plan.yaml").write_text(json.dumps(_PLAN))
        self._want()
        self.replicas = [self._start("0", 0), self._start("1", 0)]
        for replica in self.replicas:
            until(lambda one=replica: _is_up(one), 600)  # type: ignore[misc]

    @property
    def urls(self) -> list[str]:
        return [str(one.http.base_url) for one in self.replicas]

    def update(self, version: Profile) -> bool:
        """A rolling update: stage everywhere, then activate. Returns whether all replicas show the same then."""
        save_profile(version, self._profiles / LIVE, overwrite=True)
        self._want(staged=version)
        self._wait_until_ready()
        self.active = version
        self._want()
        self._wait_until_ready()
        return self.skew() == 0

    def skew(self) -> float:
        """How far apart the versions are that the replicas show on /metrics."""
        shown = [numbers(one)["trimtab_profile_version", f"profile={LIVE}"] for one in self.replicas]
        return max(shown) - min(shown)

    def restart(self) -> None:
        """End the second replica, as an orchestrator does, and start it again at the same port."""
        old = self.replicas[1]
        port = int(old.http.base_url.port or 0)
        code = old.stop()
        assert code == 0, f"it ended with {code}"
        self.replicas[1] = self._start("1", port)
        until(lambda: _is_up(self.replicas[1]), 600)

    def stop(self) -> None:
        for one in self.replicas:
            if one.process.poll() is None:
                one.stop()

    def _start(self, name: str, port: int) -> Server:
        settings = {
            "desired": self._desired,
            "refresh": LOOKS,
            "experiments": self.home / "plan.yaml",
            "exposures": self.home / f"exposures-{name}",
            "state": self.home / f"state-{name}",
            "drain": _DRAIN,
        }
        words = [f"--steering-{option}={value}" for option, value in settings.items()]
        env = {"TRIMTAB_UNIT_KEY": "a unit key of thirty-two characters", "TRIMTAB_REPLICA": name}
        log = self.home / f"replica-{name}.log"
        return Server(log, MODEL, self._profiles, *words, env=env, fork=False, wait=False, port=port)

    def _want(self, staged: Profile | None = None) -> None:
        live = {"active": f"sha256:{self.active.digest}"}
        live |= {} if staged is None else {"staged": f"sha256:{staged.digest}"}
        fixed = {name: {"active": f"sha256:{profile.digest}"} for name, profile in self._fixed.items()}
        fresh = self._desired.with_suffix(".new")
        fresh.write_text(json.dumps({"version": 1, "profiles": {LIVE: live, **fixed}}))
        os.replace(fresh, self._desired)

    def _wait_until_ready(self) -> None:
        for one in self.replicas:
            until(lambda replica=one: replica.http.get(READY).status_code == 200)  # type: ignore[misc]


def _is_up(replica: Server) -> bool:
    if replica.process.poll() is not None:
        raise RuntimeError("a replica ended while it started")
    try:
        return replica.http.get(READY).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def load(url: str, per_second: float, path: str, body: Callable[[int], dict[str, Any]]) -> Iterator[list[Any]]:
    """Requests at a steady rate, as far as the machine keeps up; yields what came of each: an answer, or an error."""
    came: list[httpx.Response | httpx.TransportError] = []
    ended, lock, began = threading.Event(), threading.Lock(), time.monotonic()
    count = 0

    def ask(http: httpx.Client) -> None:
        nonlocal count
        while not ended.is_set():
            with lock:
                number, count = count, count + 1
            ended.wait(max(0.0, began + number / per_second - time.monotonic()))
            came.append(post(http, path, body(number)))

    clients = 16
    with httpx.Client(base_url=url, timeout=600) as http, ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(ask, http) for _ in range(clients)]
        try:
            yield came
        finally:
            ended.set()
        for one in running:
            one.result()


def post(http: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response | httpx.TransportError:
    try:
        return http.post(path, json=body)
    except httpx.TransportError as error:
        return error


def of_unit(path: str, unit: int) -> dict[str, Any]:
    """A request of a unit of the experiment. Its arm can be told from the answer's words."""
    return asking(path, 1, steering={"experiment": EXPERIMENT, "unit": f"unit {unit}"})
