"""Several API servers and several engines behind one port: every door of each steers and says so."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.engine.asking import Answer, Ask
from tests.engine.counted import numbers
from tests.engine.engine import Engine
from tests.engine.server import MODEL_NAME, Server
from tests.engine.test_http_doors import LENGTH, NAMES, ONE, QUESTION, STEERING, asked, check_told
from tests.engine.test_http_metrics import eventually
from trimtab.plugin.http.routes import BATCH, CHAT, COMPLETIONS, STEERED
from trimtab.vectors import Registry

pytestmark = [pytest.mark.engine, pytest.mark.slow]

ROUNDS = 8


def summed(server: Server, metric: str, profile: str) -> float:
    """Over all processes that count."""
    found = numbers(server).items()
    return sum(value for (name, *labels), value in found if name == metric and f"profile={profile}" in labels)


@pytest.mark.parametrize("option", ["--api-server-count=2", "--data-parallel-size=2"])
def test_every_door_steers_whoever_answers(
    option: str, engine: Engine, model: Path, profiles: Path, registry: Registry, tmp_path: Path
) -> None:
    wishes = {"plain": None, "one": ONE, "both": STEERING}
    found = engine.ask_alone([Ask(QUESTION, steering=wish, max_tokens=LENGTH) for wish in wishes.values()])
    answers: dict[str, Answer] = dict(zip(wishes, found, strict=True))
    work = [(path, name) for path in sorted(STEERED) for name in wishes] * ROUNDS
    server = Server(tmp_path / "log", model, profiles, option, fork=False)
    try:

        def ask(path: str, name: str) -> None:
            reply = asked(server, path, answers["plain"].prompt, steering=wishes[name])
            assert set(reply.texts) == {answers[name].text}
            names, alphas = {"plain": ([], []), "one": ([NAMES[0]], [-2.0]), "both": (list(NAMES), [-2.0, 2.0])}[name]
            check_told(reply, names, alphas, registry)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(ask, *zip(*work, strict=True)))
        prompts = Counter(name for path, name in work for _ in range(2 if path in (BATCH, COMPLETIONS) else 1))
        counted = server.counted()
        assert counted["none"] == prompts["plain"]
        assert counted[NAMES[0]] == prompts["one"] + prompts["both"]
        assert counted[NAMES[1]] == prompts["both"]
        for number in range(2 * ROUNDS):
            turns = [{"role": "user", "content": f"question {number}: who is there?"}]
            body = {"model": MODEL_NAME, "messages": turns, "max_tokens": LENGTH, "ignore_eos": True}
            assert server.http.post(CHAT, json={**body, "steering": "watched"}).status_code == 200
        positions = 2 * ROUNDS * LENGTH
        assert eventually(lambda: summed(server, "trimtab_concept_active_total", "watched") >= positions)
        assert summed(server, "trimtab_concept_active_total", "watched") == positions
    finally:
        server.stop()
