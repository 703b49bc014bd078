"""One server of two API processes and two engines: all of them steer alike, also while profiles change under load."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

from examples.tinyworld.study.prepare import write_folders
from tests.engine.asking import caption, questions, yes_no
from tests.engine.conftest import BOTH_WAYS, MIDDLE
from tests.engine.counted import grown, numbers
from tests.engine.engine import Engine
from tests.engine.reference import Reference
from tests.engine.server import CHAT, Server, body
from trimtab.offline.cli.app import app
from trimtab.vectors import Profile, Registry, SteeringVector, save_profile

pytestmark = pytest.mark.engine

KEY = "an-admin-key-of-a-test"
LIVE = "coarse-middle-all"
VERSIONS = 6
STRONG = 6.0  # times the length of the stream: each version must change what is said
RELOADS = 12  # twice each version; thousands of them are a part of `make reliability`
STEERINGS = (None, "coarse-last-answer", LIVE, "fine-last-answer", "yes-to-no")
ASKS = [
    *(caption(seed, max_tokens=8, steering=steering) for seed, steering in enumerate(STEERINGS)),
    *(ask.steered(steering) for ask, steering in zip(yes_no("yes", 5), STEERINGS, strict=True)),
    *(ask.steered(steering) for ask, steering in zip(questions("number", 5), STEERINGS, strict=True)),
]
TUNING = """
model: {model}
data: {data}
ask: {{dev: 15, test: 24}}
max_tokens: 3
layers: [5]
most_collateral: 0.1
nulls: 1
steerings:
  tuned-yes-to-no: {{map: {{yes: no}}}}
candidates:
  - {{kind: coarse, alphas: [0.5]}}
  - {{kind: class-means, alphas: [0.1, 1.0]}}
"""
LONG = caption(5, max_tokens=200, ignore_eos=True)
SHORT = [caption(seed, max_tokens=6) for seed in (1, 5)]


@pytest.fixture(scope="module")
def folder(profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(profiles, tmp_path_factory.mktemp("rolling") / "profiles")


@pytest.fixture(scope="module")
def replicas(model: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "replicas.log"
    # vLLM cuts off what still runs where it has several API processes, so the drain has to be longer than an answer.
    settings = ("--data-parallel-size=2", "--steering-drain=20", "--shutdown-timeout=60")
    running = Server(log, model, folder, *settings, env={"TRIMTAB_ADMIN_KEYS": KEY}, fork=False)
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture(scope="module")
def versions(reference: Reference, registry: Registry) -> list[Profile]:
    """Of one profile, each in a direction of its own, so that each says something else."""
    model = registry[LIVE].manifest.base_model
    size = float(np.median(np.linalg.norm(reference.stream(SHORT[0], [0], [MIDDLE])[MIDDLE], axis=1)))
    found = []
    for number in range(VERSIONS):
        vector = np.random.default_rng(number).normal(size=model.hidden_size)
        vector *= STRONG * size / np.linalg.norm(vector)
        vectors = [SteeringVector(MIDDLE, vector.astype(np.float32))]
        found.append(Profile.coarse(LIVE, vectors, model=model, positions="all", alpha=BOTH_WAYS))
    return found


@pytest.fixture(scope="module")
def expected(reference: Reference, model: Path, versions: list[Profile]) -> dict[tuple[str, int], str]:
    """What transformers, with each version added, answers to each of SHORT."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    found = {}
    for version, (number, ask) in itertools.product(versions, enumerate(SHORT)):
        tokens: list[int] = []
        while len(tokens) < ask.max_tokens and tokens[-1:] != [tokenizer.eos_token_id]:
            tokens.append(int(reference.logprobs(ask, [*tokens, 0], version, 1.0)[-1].argmax()))
        found[version.digest, number] = tokenizer.decode(tokens, skip_special_tokens=True)
    return found


@pytest.fixture(scope="module")
def change(replicas: Server) -> Callable[..., httpx.Response]:
    def post(what: str, key: str = KEY, **fields: Any) -> httpx.Response:
        headers = {"X-Steering-Admin-Key": key}
        return replicas.http.post(f"/v1/steering/profiles/{what}", json={"name": LIVE, **fields}, headers=headers)

    return post


def digest_of(reply: httpx.Response) -> str:
    return str(reply.headers["X-Steering-Digest"])


def text_of(reply: httpx.Response) -> str:
    return str(reply.json()["choices"][0]["message"]["content"])


def bring(change: Callable[..., httpx.Response], folder: Path, version: Profile) -> None:
    """Let the server serve another version."""
    save_profile(version, folder / LIVE, overwrite=True)
    staged, active = change("stage"), change("activate", digest=f"sha256:{version.digest}")
    assert (staged.status_code, active.status_code) == (200, 200), (staged.text, active.text)


def resident(server: Server) -> int:
    """Bytes of memory of all of a server's processes."""
    return sum(int(process.memory_info().rss) for process in server.processes())


def prefix_hits(server: Server) -> float:
    """Tokens of prompts that came from the prefix cache."""
    lines = server.http.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:prefix_cache_hits_total"))


def test_both_engines_steer_and_all_api_processes_count_together(engine: Engine, replicas: Server) -> None:
    engine.forget()
    expected = [answer.text for answer in engine.ask(ASKS)]
    before, counted, whole = _finished_by_engine(replicas), replicas.counted(), numbers(replicas)
    for rank in (0, 1):
        headers = {"X-data-parallel-rank": str(rank)}
        with ThreadPoolExecutor(len(ASKS)) as pool:
            replies = list(pool.map(lambda ask, sent=headers: replicas.chat(ask, sent), ASKS))
        assert [text_of(reply) for reply in replies] == expected
    after = _finished_by_engine(replicas)
    assert {rank: after[rank] - before.get(rank, 0) for rank in after} == {"0": len(ASKS), "1": len(ASKS)}
    asked = Counter(str(ask.steering or "none") for ask in ASKS)
    now = replicas.counted()
    assert {name: now[name] - counted.get(name, 0) for name in asked} == {name: 2 * n for name, n in asked.items()}
    tokens = Counter[str]()
    for (metric, *_), value in grown(whole, numbers(replicas)).items():
        tokens[metric] += int(value)
    assert tokens["trimtab_generated_tokens_total"] == tokens["vllm:generation_tokens_total"] > 0
    assert tokens["trimtab_prompt_tokens_total"] == tokens["vllm:prompt_tokens_total"] > 0


def test_no_request_fails_and_no_answer_mixes_versions_while_profiles_change(
    replicas: Server,
    change: Callable[..., httpx.Response],
    folder: Path,
    versions: list[Profile],
    expected: dict[tuple[str, int], str],
) -> None:
    assert len({expected[version.digest, 0] for version in versions}) == len(versions)
    bring(change, folder, versions[-1])  # in place of what the server started with
    hits = prefix_hits(replicas)
    replies: list[tuple[int, httpx.Response]] = []
    ended = threading.Event()

    def ask(number: int) -> None:
        while not ended.is_set():
            replies.append((number, replicas.chat(SHORT[number].steered(LIVE))))

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in (0, 1, 0, 1)]
        try:
            for number in range(RELOADS):
                version = versions[number % len(versions)]
                bring(change, folder, version)
                told = replicas.chat(SHORT[0].steered(LIVE))
                assert digest_of(told) == version.digest, "a request after the answer to the change got an old version"
                replies.append((0, told))
                if number == RELOADS // 3:
                    before = resident(replicas)
        finally:
            ended.set()
        for one in asking:
            one.result()
    grown = resident(replicas) - before
    # The profile steers prompts as well, so that a block of another version would have been another's answer.
    assert prefix_hits(replicas) > hits
    assert {reply.status_code for _, reply in replies} == {200}
    assert len(replies) > 2 * RELOADS
    mixed = [reply for number, reply in replies if text_of(reply) != expected[digest_of(reply), number]]
    assert not mixed
    assert len({digest_of(reply) for _, reply in replies}) == len(versions)
    assert grown < 64 << 20


def test_an_answer_ends_with_the_version_that_it_began_with(
    replicas: Server, change: Callable[..., httpx.Response], folder: Path, versions: list[Profile]
) -> None:
    long = {**body(LONG.steered(LIVE)), "ignore_eos": True}
    alone = {}
    for version in (versions[3], versions[0]):
        bring(change, folder, version)
        alone[version.digest] = text_of(replicas.http.post(CHAT, json=long))
    with replicas.http.stream("POST", CHAT, json={**long, "stream": True}) as reply:
        assert digest_of(reply) == versions[0].digest
        lines = reply.iter_lines()
        text = _said(next(line for line in lines if _said(line)))
        for version in versions[1:4]:  # the rows of the first would have been used again twice
            bring(change, folder, version)
        text += "".join(map(_said, lines))
    assert text == alone[versions[0].digest] != alone[versions[3].digest]


def test_readiness_says_what_every_process_serves(replicas: Server, change: Callable[..., httpx.Response]) -> None:
    found = [httpx.get(replicas.http.base_url.join("/v1/steering/ready"), timeout=60) for _ in range(8)]
    assert {reply.status_code for reply in found} == {200}
    (same,) = {reply.text for reply in found}
    active = found[0].json()["profiles"][LIVE]["active"]
    assert active in same
    shown = numbers(replicas)
    assert shown["trimtab_profile_version", f"profile={LIVE}"] == int(active[:12], 16)
    assert shown["trimtab_generation",] == found[0].json()["counter"]
    disabled = change("disable", reason="it is being looked at")
    assert disabled.status_code == 200
    assert numbers(replicas)["trimtab_profile_disabled", f"profile={LIVE}"] == 1
    replies = [httpx.post(replicas.http.base_url.join(CHAT), json=body(SHORT[0].steered(LIVE)), timeout=60)
               for _ in range(8)]  # fmt: skip
    assert {reply.status_code for reply in replies} == {503}
    assert "it is being looked at" in replies[0].json()["error"]["message"]
    assert change("enable").status_code == 200
    assert replicas.chat(SHORT[0].steered(LIVE)).status_code == 200


def test_what_a_worker_refuses_leaves_all_as_it_was(
    replicas: Server, change: Callable[..., httpx.Response], folder: Path, versions: list[Profile]
) -> None:
    before = replicas.http.get("/v1/steering/ready").json()
    rows = np.ones((4000, len(versions[0].tensors[MIDDLE].named["vector"])))
    large = Profile.fine(LIVE, {MIDDLE: (rows, rows)}, model=versions[0].manifest.base_model)
    save_profile(large, folder / LIVE, overwrite=True)
    refused = change("stage")
    assert refused.status_code == 409
    message = refused.json()["error"]["message"]
    assert message.startswith(f"a worker refused: profile {LIVE!r} needs 8000 rows at layer {MIDDLE} and ")
    after = replicas.http.get("/v1/steering/ready").json()
    assert after["profiles"][LIVE]["active"] == before["profiles"][LIVE]["active"]
    assert replicas.chat(SHORT[0].steered(LIVE)).status_code == 200
    assert change("stage", key="no").status_code == 401


def test_a_tuning_brings_its_candidates_and_takes_them_out_again(
    replicas: Server, model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folders(tmp_path / "data", {"train": 30, "dev": 5, "test": 8})
    (tmp_path / "words.yaml").write_text(TUNING.format(model=model, data=tmp_path / "data" / "answers"))
    before, there = replicas.http.get("/v1/steering/ready").json()["profiles"], sorted(folder.iterdir())
    monkeypatch.setenv("KEY_OF_A_TEST", KEY)
    told = ("--base-url", f"{replicas.http.base_url}/v1", "--profiles", folder, "--admin-key-env", "KEY_OF_A_TEST")
    done = CliRunner().invoke(app, ["tune", *map(str, (tmp_path / "words.yaml", "--run", tmp_path / "run", *told))])
    assert done.exit_code == 0, done.output
    assert "fine, class means, layer 5, alpha 1" in done.stdout
    assert "the server starts" not in done.output
    assert KEY not in "".join(path.read_text(errors="replace") for path in (tmp_path / "run").rglob("*.json"))
    assert replicas.http.get("/v1/steering/ready").json()["profiles"] == before
    assert sorted(folder.iterdir()) == there
    actions = Counter(
        line.partition("{")[2].rpartition("}")[0]
        for line in replicas.http.get("/metrics").text.splitlines()
        if line.startswith("trimtab_changes_total") and not line.endswith(" 0.0")
    )
    assert 'action="unload",result="done"' in actions


def test_sigterm_makes_it_unready_first_and_lets_running_answers_end(replicas: Server) -> None:
    """The last of this server."""
    sent = {**body(LONG), "ignore_eos": True, "stream": True}
    with replicas.http.stream("POST", CHAT, json=sent) as reply:
        lines = reply.iter_lines()
        next(line for line in lines if line)
        replicas.process.send_signal(signal.SIGTERM)
        while (ready := httpx.get(replicas.http.base_url.join("/v1/steering/ready"), timeout=60)).status_code == 200:
            pass
        assert ready.json()["reasons"] == ["the server is about to end"]
        assert replicas.chat(SHORT[0]).status_code == 200  # until those who send requests have looked elsewhere
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert any('"finish_reason":"length"' in line for line in rest)
    assert replicas.process.wait(120) == 0
    replicas.http.close()
    replicas.openai.close()


def _said(line: str) -> str:
    """The text in one line of a stream."""
    data = line.removeprefix("data: ")
    if not data.startswith("{"):
        return ""
    choices = json.loads(data)["choices"]
    return str(choices[0]["delta"].get("content") or "") if choices else ""


def _finished_by_engine(server: Server) -> dict[str, float]:
    finished: dict[str, float] = {}
    for line in server.http.get("/metrics").text.splitlines():
        if line.startswith("vllm:request_success_total"):
            rank = line.partition('engine="')[2][0]
            finished[rank] = finished.get(rank, 0) + float(line.rpartition(" ")[2])
    return finished
