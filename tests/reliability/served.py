"""The one server that the parts of a run share: with an access policy, an admin key and profiles that can change."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.engine.engine import ROOT
from tests.engine.server import MODEL_NAME, Server
from tests.reliability.words import HELD, WEAK, Speech
from trimtab.plugin.http.admin import KEY_HEADER
from trimtab.plugin.http.routes import BATCH, CHAT, COMPLETIONS, INVOCATIONS, MESSAGES, RESPONSES
from trimtab.vectors import Registry

MODEL = ROOT / "examples/tinyworld/model"
ADMIN = "admin-canary-5d2f60a1c7"
KEYS = {"team-a": "sk-canary-team-a-18c2f0", "team-b": "client-canary-team-b-77f1", "gateway": "gw-canary-9a03be"}
"""The key of each subject of the policy."""
CONSUMER = "X-Consumer"
READY = "/v1/steering/ready"
QUESTION = "describe the picture."


def digest_of(key: str) -> str:
    """A key as a policy writes it."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def policy(**more: Any) -> str:
    """An access policy that enforces HELD; JSON is YAML. more: sections in place of these."""
    subjects: dict[str, Any] = {name: {"keys": [digest_of(key)]} for name, key in KEYS.items()}
    subjects["gateway"]["subject_from"] = CONSUMER
    rules = [
        {"subjects": ["team-a"], "allow": {"weak-*": {"alpha": [-0.5, 0.5]}}, "may_opt_out": True},
        {"subjects": ["team-b"], "allow": {WEAK[1]: {}}},
        {"subjects": ["*"]},
    ]
    whole = {"version": 1, "subjects": subjects, "rules": rules, "enforced": [{"profile": HELD, "alpha": 1}], **more}
    return json.dumps(whole)


class Shared(Server):
    """The server, and what an operator does to it.

    home: folder of its files: `policy.yaml`, `profiles`, `state` and `server.log`. speech: makes profiles for it.
    """

    def __init__(self, home: Path, *settings: str, env: dict[str, str] | None = None, again: bool = False) -> None:
        self.home, self.profiles, self.state = home, home / "profiles", home / "state"
        self.log = home / "server.log"
        self._policy = home / "policy.yaml"
        self.speech = Speech(MODEL)
        if not again:
            self.speech.save_all(self.profiles)
            self._policy.write_text(policy())
        options = (
            f"--steering-policy={self._policy}",
            f"--steering-state={self.state}",
            "--steering-refresh=0.2",
            *settings,
        )
        keys = {"TRIMTAB_ADMIN_KEYS": ADMIN, **(env or {})}
        super().__init__(self.log, MODEL, self.profiles, *options, env=keys, fork=False)  # as an operator's

    @property
    def registry(self) -> Registry:
        return Registry.open(self.profiles)

    def change(self, what: str, name: str, **fields: Any) -> httpx.Response:
        """Ask for a change, as an operator does."""
        body = {"name": name, **fields}
        return self.http.post(f"/v1/steering/profiles/{what}", json=body, headers={KEY_HEADER: ADMIN})

    def govern(self, text: str) -> None:
        """Replace the access policy, and wait until it is in force."""
        fresh = self._policy.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, self._policy)
        wanted = hashlib.sha256(text.encode()).hexdigest()
        until(lambda: self.ready().json()["policy"] == wanted and self.ready().status_code == 200)

    def resident(self) -> int:
        """Bytes of memory of all of its processes."""
        return sum(int(process.memory_info().rss) for process in self.processes())

    def ready(self) -> httpx.Response:
        return self.http.get(READY)


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"what was waited for did not come in {seconds:g} s")
        time.sleep(0.05)


def key_of(path: str, key: str) -> dict[str, str]:
    """The headers with which clients of a route send a key."""
    return {"x-api-key": key} if path == MESSAGES else {"Authorization": f"Bearer {key}"}


def question(path: str, length: int = 2, text: str = QUESTION) -> dict[str, Any]:
    """A question as a route takes it, without the name of a model. length: tokens of the answer."""
    turns = [{"role": "user", "content": text}]
    return {
        CHAT: {"messages": turns, "max_tokens": length},
        BATCH: {"messages": [turns, turns], "max_tokens": length},
        COMPLETIONS: {"prompt": text, "max_tokens": length},
        RESPONSES: {"input": text, "max_output_tokens": length},
        MESSAGES: {"messages": turns, "max_tokens": length},
        INVOCATIONS: {"messages": turns, "max_tokens": length},
    }[path]


def asking(path: str, length: int = 2, **more: Any) -> dict[str, Any]:
    """The body of a request. more: fields beside, or in place of, those of the question."""
    return {"model": MODEL_NAME, "temperature": 0, **question(path, length), **more}


_running: dict[Path, Shared] = {}


def shared(work: Path) -> Shared:
    """The server of a run, which starts when it is first asked for."""
    if work not in _running:
        home = work / "shared"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        _running[work] = Shared(home)
    return _running[work]


def close() -> None:
    """Stop what `shared` started."""
    while _running:
        _, running = _running.popitem()
        if running.process.poll() is None:
            running.stop()
