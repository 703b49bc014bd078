"""The server with an access policy and an experiment that several laws share: its files, its keys, and what it adds."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.engine.server import Server
from trimtab.plugin.http.routes import MESSAGES

KEY = "sk-key-of-team-a-in-a-test"
GATEWAY = "sk-key-of-a-gateway-in-a-test"
TRIAL = "sk-key-of-a-trial-in-a-test"
UNIT_SECRET = "the key of the units of a test, long enough"
HELD = {"profile": "coarse-middle-all", "alpha": -2}
USUAL = {"profile": "coarse-last-all", "alpha": 2}
OTHER = {"profile": "fine-last-answer", "alpha": 1}


def digest_of(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def written(**more: Any) -> str:
    """A policy; JSON is YAML."""
    trial = {"subjects": ["trial"], "default": {"experiment": "doses"}, "may_opt_out": True, "may_force_arm": True}
    return json.dumps(
        {
            "version": 1,
            "subjects": {
                "team-a": {"keys": [digest_of(KEY)]},
                "gateway": {"keys": [digest_of(GATEWAY)], "subject_from": "X-Consumer"},
                "trial": {"keys": [digest_of(TRIAL)]},
            },
            "rules": [
                {"subjects": ["team-a"], "allow": {OTHER["profile"]: {"alpha": [0, 1]}}, "may_opt_out": True},
                {**trial, "allow": {OTHER["profile"]: {}}},
                {"subjects": ["*"]},
            ],
            "default": USUAL,
            "enforced": [HELD],
            "limits": {"against_enforced": 1000},
            **more,
        }
    )


def planned(**more: Any) -> str:
    """A plan of one experiment, with an arm that is unsteered but for what is enforced, one for the default, and one
    that nobody else may ask for."""
    arms = {"control": {"steering": "none"}, "usual": {"steering": None}, "other": {"steering": OTHER}}
    one = {"layer": "strength", "seed": "d-1", "coverage": 0.7, "arms": arms, "status": "running", **more}
    layers = {"strength": {"seed": "l-1", "holdout": 0.1}}
    return json.dumps({"version": 1, "layers": layers, "experiments": {"doses": one}})


@contextmanager
def carrying(server: Server, **headers: str) -> Iterator[None]:
    """Requests of this server carry headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    server.http.headers.update(named)
    try:
        yield
    finally:
        for name in named:
            del server.http.headers[name]


def key_of(path: str, key: str = KEY) -> dict[str, str]:
    """As clients of a route send a key."""
    return {"x_api_key": key} if path == MESSAGES else {"authorization": f"Bearer {key}"}


def until(what: Callable[[], Any], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(what())
