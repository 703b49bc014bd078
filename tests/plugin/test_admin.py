"""Only who has an admin key changes what is served, and readiness says whether this server serves what it should."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from tests.plugin.rolling import Rolling, version
from trimtab.plugin.control.audit import JsonLines
from trimtab.plugin.control.keys import ADMIN_KEYS, AdminKeys, read_keys
from trimtab.plugin.control.served import _followers
from trimtab.plugin.errors import StartupError
from trimtab.plugin.http import admin
from trimtab.plugin.http.doors import EndpointPlugin
from trimtab.plugin.requests import admission
from trimtab.plugin.runners import staging
from trimtab.vectors import ModelIdentity

KEY, NEXT = "first-" + "k" * 20, "next-" + "k" * 20
HEADERS = {admin.KEY_HEADER: KEY}
PROFILES = "/v1/steering/profiles"
READY = "/v1/steering/ready"


class EngineClient:
    """What a front end has of an engine: its configuration, its health and a way to its workers."""

    def __init__(self, server: Rolling) -> None:
        self.server, self.vllm_config = server, server.vllm_config
        self.dead = False

    async def check_health(self) -> None:
        if self.dead:
            raise RuntimeError("the engine is dead")

    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> None:
        for worker in self.server.workers:
            getattr(staging, method)(worker, *args)


@pytest.fixture
def server(folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rolling:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    return Rolling(folder, model_folder, tmp_path / "state")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TestClient]:
    """Our routes in an application, before an engine."""

    def made(server: Rolling, keys: str = f"{KEY},{admin_hash(NEXT)}") -> TestClient:
        monkeypatch.setenv(ADMIN_KEYS, keys)
        monkeypatch.setattr(admission, "registry_of", lambda config: server.now().registry)
        app = FastAPI()
        EndpointPlugin().attach_router(app)
        app.state.engine_client = EngineClient(server)
        app.state.steering = lambda: server.now().registry
        admin.start(app.state.engine_client, app.state)
        return TestClient(app)

    return made


def admin_hash(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def test_a_version_comes_in_by_name_and_goes_back(
    server: Rolling, serve: Callable[..., TestClient], model: ModelIdentity
) -> None:
    client = serve(server)
    old, new = server.registry["polite"], server.put(version(model, 7.0))
    staged = client.post(f"{PROFILES}/stage", json={"name": "polite"}, headers=HEADERS)
    assert staged.status_code == 200
    assert staged.json()["profile"] == {"active": old.digest, "other": new.digest, "disabled": None}
    assert client.get(f"{PROFILES}/polite").json()["digest"] == old.digest
    digest = f"sha256:{new.digest[:12]}"
    active = client.post(f"{PROFILES}/activate", json={"name": "polite", "digest": digest}, headers=HEADERS)
    assert active.json()["profile"]["active"] == new.digest
    assert client.get(f"{PROFILES}/polite").json()["digest"] == new.digest
    client.post(f"{PROFILES}/activate", json={"name": "polite"}, headers=HEADERS)
    assert client.get(f"{PROFILES}/polite").json()["digest"] == old.digest


def test_disabling_and_unloading_show_in_discovery(server: Rolling, serve: Callable[..., TestClient]) -> None:
    client = serve(server)
    told = client.post(f"{PROFILES}/disable", json={"name": "polite", "reason": "no"}, headers=HEADERS).json()
    assert told["profile"]["disabled"] == "no"
    assert "polite" not in [one["id"] for one in client.get(PROFILES).json()["data"]]
    client.post(f"{PROFILES}/enable", json={"name": "polite"}, headers=HEADERS)
    client.post(f"{PROFILES}/unload", json={"name": "brief"}, headers=HEADERS)
    assert [one["id"] for one in client.get(PROFILES).json()["data"]] == ["gender-neutral", "polite"]


@pytest.mark.parametrize("what", ["stage", "activate", "unload", "disable", "enable"])
@pytest.mark.parametrize(
    "headers", [{}, {admin.KEY_HEADER: "x"}, {admin.KEY_HEADER: KEY + "x"}, {"Authorization": KEY}]
)
def test_without_a_valid_key_nothing_changes(
    server: Rolling, serve: Callable[..., TestClient], what: str, headers: dict[str, str]
) -> None:
    before = server.state.read()
    answer = serve(server).post(f"{PROFILES}/{what}", json={"name": "polite", "reason": "x"}, headers=headers)
    # A field too many is refused before the key is looked at.
    assert answer.status_code == (401 if what == "disable" else 422)
    body = {"name": "polite", **({"reason": "x"} if what == "disable" else {})}
    answer = serve(server).post(f"{PROFILES}/{what}", json=body, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["param"] == admin.KEY_HEADER
    assert server.state.read() == before
    assert not (server.state.folder / "audit.jsonl").exists()


def test_each_of_several_keys_is_valid_and_the_log_tells_them_apart(
    server: Rolling, serve: Callable[..., TestClient]
) -> None:
    client = serve(server)
    for key in (KEY, NEXT):
        headers = {admin.KEY_HEADER: key}
        assert client.post(f"{PROFILES}/stage", json={"name": "polite"}, headers=headers).status_code == 200
    first, second = server.audited()
    assert first.partition('"who"')[2][:30] != second.partition('"who"')[2][:30]
    for line in (first, second):
        assert KEY not in line
        assert NEXT not in line
        assert admin_hash(KEY)[7:] not in line


@pytest.mark.parametrize("what", ["stage", "activate", "unload", "disable", "enable"])
def test_without_keys_there_are_no_routes(server: Rolling, serve: Callable[..., TestClient], what: str) -> None:
    answer = serve(server, keys="").post(f"{PROFILES}/{what}", json={"name": "polite"}, headers=HEADERS)
    assert answer.status_code in (404, 405)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "polite/../../x", "\u0000", "POLITE", "a" * 150])
def test_a_path_is_no_name(server: Rolling, serve: Callable[..., TestClient], name: str) -> None:
    for what in ("stage", "activate", "unload", "enable"):
        answer = serve(server).post(f"{PROFILES}/{what}", json={"name": name}, headers=HEADERS)
        assert answer.status_code in (404, 409)
        assert str(server.profiles) not in answer.text


def test_ready_is_only_who_holds_what_is_served(server: Rolling, serve: Callable[..., TestClient]) -> None:
    client = serve(server)
    found = client.get(READY)
    assert found.status_code == 200
    body = found.json()
    assert body["ready"] is True
    assert (body["counter"], body["digest"]) == (1, server.state.read().digest)
    assert body["profiles"]["polite"]["active"] == server.registry["polite"].digest
    spoils: list[tuple[Callable[[], None], str]] = [
        (lambda: server.state.draining.touch(), "about to end"),
        (lambda: setattr(client.app.state.engine_client, "dead", True), "the engine does not answer"),  # type: ignore[attr-defined]
    ]
    for spoil, reason in spoils:
        spoil()
        found = client.get(READY)
        assert found.status_code == 503
        assert reason in found.json()["reasons"][0]
        server.state.draining.unlink(missing_ok=True)


def test_a_server_with_a_worker_that_lacks_a_version_is_unready(
    server: Rolling, serve: Callable[..., TestClient]
) -> None:
    server.workers[1].tables.slots.pop(server.registry["polite"].digest)
    found = serve(server).get(READY)
    assert found.status_code == 503


def test_a_server_that_does_not_know_what_to_serve_is_unready(
    server: Rolling, serve: Callable[..., TestClient]
) -> None:
    client = serve(server)
    (server.state.folder / "generation.json").unlink()
    _followers.clear()
    found = client.get(READY)
    assert found.status_code == 503
    assert "generation.json: " in found.json()["reasons"][0]


@pytest.mark.parametrize("key", ["short", "sha256:abc", "sha256:" + "g" * 64])
def test_a_key_that_is_no_secret_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADMIN_KEYS, key)
    with pytest.raises(StartupError, match="an admin key has") as caught:
        read_keys(None)
    assert key not in str(caught.value)


def test_keys_come_from_the_environment_and_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADMIN_KEYS, f" {KEY} ,")
    file = tmp_path / "keys"
    file.write_text(f"# the next one\n{admin_hash(NEXT)}\n\n")
    keys = read_keys(file)
    assert keys.who(KEY) == f"admin {admin_hash(KEY)[7:15]}"
    assert keys.who(NEXT)
    assert not keys.who("")
    assert not keys.who(admin_hash(KEY))  # the hash of a key is no key
    assert KEY not in str(keys)
    monkeypatch.setenv(ADMIN_KEYS, str(keys))
    assert str(AdminKeys.of_environment()) == str(keys)
    for content, message in (("# none\n", "holds no key"), (None, "cannot be read")):
        file.unlink()
        if content is not None:
            file.write_text(content)
        with pytest.raises(StartupError, match=message):
            read_keys(file)
        file.touch()


def test_the_log_is_whole_when_many_write_and_rotates(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "audit.jsonl", most_bytes=2000, files=2)
    for number in range(100):
        log.write(event="x", number=number)
    assert {path.name for path in tmp_path.glob("audit*")} == {"audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"}
    assert all(path.stat().st_size <= 2000 for path in tmp_path.glob("audit*"))
    assert (tmp_path / "audit.jsonl").read_text().splitlines()[-1].endswith('"number": 99}')


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("api_key", "abc"),
        ("X-Steering-Admin-Key", "abc"),
        ("authorization", "abc"),
        ("text", "Authorization: Bearer abc"),
        ("text", "it is sk-abcdefghijk"),
        ("deep", {"password": ["abc"]}),
    ],
)
def test_no_secret_is_written(tmp_path: Path, field: str, value: Any) -> None:
    line = JsonLines(tmp_path / "x").write(**{field: value})
    assert "abc" not in line
    assert "[redacted]" in (tmp_path / "x").read_text()


def test_a_line_that_the_disk_refuses_leaves_no_half(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "x")
    log.write(event="first")
    before = log.path.read_bytes()
    log.path.chmod(0o400)
    log.path.rename(tmp_path / "kept")
    log.path.mkdir()

    def failed() -> float:
        return REGISTRY.get_sample_value("trimtab_log_failures_total", {"log": "x"}) or 0.0

    before_it = failed()
    with pytest.raises(OSError, match="directory"):
        log.write(event="second")
    assert failed() == before_it + 1
    assert (tmp_path / "kept").read_bytes() == before
