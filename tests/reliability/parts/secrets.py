"""Keys that are sent, right and wrong, on every route: none is found in a log, a metric or an error afterwards.

canaries: secrets sent. answers: their answers, all read. files: logs and files of the state folder, all read.
processes: whose command line was read, and, of all but the one that was given the key, the environment. found: the
canaries seen in any of them: 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
from tqdm import tqdm

from tests.engine.server import MODEL_NAME
from tests.reliability.served import ADMIN, KEYS, Shared, asking, policy, shared, until
from tests.reliability.words import HELD, WEAK
from trimtab.plugin.http.admin import KEY_HEADER
from trimtab.plugin.http.routes import STEERED

_WRONG = {
    "a wrong client key": "sk-canary-wrong-31fe77d2",
    "a wrong admin key": "admin-canary-wrong-88c1d0",
    "a password": "canary-password-5b0d9e",
    "a token": "hf_canarytokenofthehub01",
}
# Whose key this is, how it is sent.
_HEADERS = (
    lambda key: {"Authorization": f"Bearer {key}"},
    lambda key: {"Authorization": f"bearer {key}"},
    lambda key: {"Authorization": key},
    lambda key: {"Authorization": f"Basic {key}"},
    lambda key: {"x-api-key": key},
    lambda key: {KEY_HEADER: key},
    lambda key: {"Cookie": f"session={key}"},
    lambda key: {"Proxy-Authorization": f"Basic {key}"},
)
_WISHES: tuple[dict[str, Any], ...] = (
    {},
    {"steering": WEAK[0]},
    {"steering": "nothing"},
    {"model": f"{MODEL_NAME}:{HELD}@0"},
)


def run(work: Path, share: float) -> dict[str, Any]:
    server = shared(work)
    server.govern(policy())
    canaries = {"the admin key": ADMIN, **{f"the key of {name}": key for name, key in KEYS.items()}, **_WRONG}
    cells = list(itertools.product(sorted(STEERED), canaries.values(), _HEADERS, _WISHES))[:: max(1, round(1 / share))]
    seen: list[tuple[str, str]] = []
    for path, key, headers, wish in tqdm(cells, "secrets", mininterval=5):
        reply = server.http.post(path, json=asking(path, 1, **wish), headers=headers(key))
        seen.append((f"the answer of {path}", _whole(reply)))
    changes = list(itertools.product(("stage", "activate", "unload", "disable", "enable"), canaries.values()))
    for what, key in changes:
        body = {"name": "nothing", **({"reason": "x"} if what == "disable" else {})}
        reply = server.http.post(f"/v1/steering/profiles/{what}", json=body, headers={KEY_HEADER: key})
        seen.append((f"the answer of {what}", _whole(reply)))
    seen += [(f"GET {path}", _whole(server.http.get(path))) for path in _PAGES]
    until(lambda: (server.state / "decisions.jsonl").exists())
    files = [path for path in server.home.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    seen += [(path.name, path.read_text(errors="replace")) for path in files]
    processes = list(_processes(server))
    seen += processes
    leaks = {(what, name) for what, text in seen for name, canary in canaries.items() if canary in text}
    return {
        "canaries": len(canaries),
        "answers": len(cells) + len(changes) + len(_PAGES),
        "files": len(files),
        "processes": len(processes),
        "found": len(leaks),
        "wrong": [f"{name} is in {what}" for what, name in sorted(leaks)],
    }


_PAGES = ("/metrics", "/v1/models", "/v1/steering/profiles", "/v1/steering/ready", "/openapi.json", "/version")


def _whole(reply: httpx.Response) -> str:
    return reply.text + str(dict(reply.headers))


def _processes(server: Shared) -> Iterator[tuple[str, str]]:
    """What other users' tools may see of each process, and what it inherits."""
    first = psutil.Process(server.process.pid)
    started = first.cmdline()
    yield "the command line of the server", " ".join(started)
    for process in first.children(recursive=True):
        yield f"the command line of process {process.name()}", " ".join(process.cmdline())
        if process.cmdline() != started:  # the watcher's own child is a fork, and was given the key too
            yield f"the environment of process {process.name()}", str(process.environ())
