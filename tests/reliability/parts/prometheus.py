"""A Prometheus scrapes a server under load: every query of the dashboard has numbers, and every alert rule is taken.

panels, queries: of the dashboard. empty: panels without a number at the end of the load: none. rules: alert rules that
Prometheus evaluated without an error. requests: those sent. It draws the panels into out/dashboard.png.
"""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tests.engine.engine import ROOT
from tests.engine.server import CHAT, MODEL_NAME
from tests.reliability.scraped import draw, prometheus, queries
from tests.reliability.served import Shared, asking, policy, until
from trimtab.plugin.http.routes import COMPLETIONS
from trimtab.plugin.steps.drift import Window
from trimtab.vectors import AlphaRange, Gate, Profile, SteeringVector, save_profile

LOAD = 120  # seconds
PICTURE = ROOT / "out" / "dashboard.png"
_MEASURED = "measured"  # a profile that knows the size of the stream, which the relative dose needs
_WATCHED = "watched"  # one that knows which concepts to expect, which their drift needs
_WISHES: tuple[Any, ...] = (
    "weak-a",
    {"profile": "weak-b", "alpha": 0.5},
    ["weak-a", "weak-b"],
    _MEASURED,
    _WATCHED,
    None,
    "who",
)
_ARMS = {"control": {"steering": "none"}, "weak": {"steering": {"profile": "weak-a", "alpha": 0.5}}}
_PLAN = {
    "version": 1,
    "layers": {"l": {"seed": "l"}},
    "experiments": {
        "doses": {"layer": "l", "range": [0, 1], "seed": "s", "coverage": 1, "arms": _ARMS, "status": "running"}
    },
}


def run(work: Path, share: float) -> dict[str, Any]:
    home = work / "prometheus"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    (home / "plan.yaml").write_text(json.dumps(_PLAN))
    settings = (f"--steering-experiments={home}/plan.yaml", f"--steering-exposures={home}/exposures")
    server = Shared(home, *settings, env={"TRIMTAB_UNIT_KEY": "a unit key of thirty-two characters"})
    try:
        server.govern(policy(rules=[{"subjects": ["*"], "allow": {"*": {}}, "experiments": ["doses"]}], enforced=[]))
        return _run(server, share)
    finally:
        server.stop()


def _run(server: Shared, share: float) -> dict[str, Any]:
    _add(server)
    seconds = max(25.0, LOAD * share)
    with prometheus(server.home, f"127.0.0.1:{server.http.base_url.port}") as scraped:
        requests = _watch(server) + _load(server, seconds)
        found: dict[str, int] = {}
        for query in queries():
            found[query.panel] = found.get(query.panel, 0) + len(scraped.now(query.expression))
        rules = scraped.rules()
        PICTURE.parent.mkdir(exist_ok=True)
        draw(scraped, seconds, PICTURE)
    empty = [panel for panel, series in found.items() if not series]
    bad = [f"alert {rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"]
    return {
        "panels": len(found),
        "queries": len(queries()),
        "empty": len(empty),
        "rules": len(rules) - len(bad),
        "requests": requests,
        "wrong": [*(f"the panel {panel!r} is empty" for panel in empty), *bad],
    }


def _add(server: Shared) -> None:
    other = server.registry["weak-a"]
    model, layer = other.manifest.base_model, other.manifest.base_model.num_layers - 1
    row = np.random.default_rng(7).normal(size=model.hidden_size).astype(np.float32)
    vectors, alpha = [SteeringVector(layer, 0.2 * row / np.linalg.norm(row))], AlphaRange(default=1.0, min=0, max=2)
    profile = Profile.coarse(_MEASURED, vectors, model=model, alpha=alpha, hidden_norms={layer: 1.0})
    save_profile(profile, server.profiles / _MEASURED, overwrite=True)
    rows = np.random.default_rng(8).normal(size=(2, model.hidden_size))
    watched = {layer: (rows, np.zeros_like(rows))}
    watching = Profile.fine(_WATCHED, watched, model=model, gate=Gate(scope="sequence"), expected={layer: (0.5, 0.5)})
    save_profile(watching, server.profiles / _WATCHED, overwrite=True)
    until(lambda: {_MEASURED, _WATCHED} <= server.ready().json()["profiles"].keys())


def _watch(server: Shared) -> int:
    """As many requests as the window of a drift has. Returns how many."""
    prompts = [f"question {number}" for number in range(Window(3).size)]
    body = {"model": MODEL_NAME, "prompt": prompts, "max_tokens": 1, "temperature": 0, "steering": _WATCHED}
    assert server.http.post(COMPLETIONS, json=body).status_code == 200
    return len(prompts)


def _load(server: Shared, seconds: float) -> int:
    """Asks for all that there is, and leaves some answers unread. Returns how many requests were sent."""
    until_when = time.monotonic() + seconds

    def ask(first: int) -> int:
        number = first
        while time.monotonic() < until_when:
            unit = {"experiment": "doses", "unit": f"unit {number % 20}"}
            wish = unit if number % 2 else _WISHES[number // 2 % len(_WISHES)]
            turns = [{"role": "user", "content": f"question {number % 5}: " + "who is left of the red car? " * 12}]
            body = asking(CHAT, 6, ignore_eos=True, messages=turns, **({} if wish is None else {"steering": wish}))
            if number % 7 == 0:
                with server.http.stream("POST", CHAT, json={**body, "stream": True, "max_tokens": 200}) as reply:
                    next(reply.iter_lines(), "")
            else:
                server.http.post(CHAT, json=body)
            number += 1
        return number - first

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(ask, range(4)))
