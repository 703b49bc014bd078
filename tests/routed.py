"""Envoy and vllm-router, which come from PyPI, as tests start them, and replicas that say what reached them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from socket import create_server
from threading import Thread
from typing import Any, NamedTuple

import httpx
import yaml

ROOT = Path(__file__).parents[1]
ENVOY = ROOT / "ops" / "envoy" / "envoy.yaml"
_READY = "/v1/steering/ready"
_SECONDS = 60


def until(what: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + _SECONDS
    while not what():
        assert time.monotonic() < deadline, f"it did not hold in {_SECONDS} s"
        time.sleep(0.05)


def free_port() -> int:
    with create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def envoy_program() -> str:
    found = find_spec("envoy")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).with_name("_bin") / "envoy")


class Heard(NamedTuple):
    """A request that reached a replica. headers: by their lower-case names."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


class Replica(ThreadingHTTPServer):
    """Answers each request with its own number, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self, number: int) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.number, self.ready = number, True
        self.heard: list[Heard] = []
        Thread(target=self.serve_forever, daemon=True).start()


@contextmanager
def two_replicas() -> Iterator[list[Replica]]:
    made = [Replica(0), Replica(1)]
    try:
        yield made
    finally:
        for one in made:
            one.shutdown()
            one.server_close()


class _Answer(BaseHTTPRequestHandler):
    server: Replica
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == _READY:
            return self._say(200 if self.server.ready else 503)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.heard.append(Heard(self.command, self.path, body, headers))
        self._say(500 if self.headers.get("X-Fail") else 200)

    do_POST = do_DELETE = do_GET

    def _say(self, status: int) -> None:
        text = str(self.server.number).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Steering-Profile", "polite")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def envoy(home: Path, ports: Sequence[int]) -> Iterator[str]:
    """The URL of an Envoy with the configuration of `ops`, in front of replicas at these ports.

    Only the addresses are other ones, and the administration is left out. home: an existing folder for its files.
    """
    config: dict[str, Any] = yaml.safe_load(ENVOY.read_text())
    del config["admin"]
    (listener,), (cluster,) = config["static_resources"]["listeners"], config["static_resources"]["clusters"]
    port = free_port()
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": one}}}} for one in ports
    ]
    (home / "envoy.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    words = [envoy_program(), "--config-path", str(home / "envoy.yaml"), "--concurrency", "1", "--use-dynamic-base-id"]
    with _running(words, home / "envoy.log", f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def vllm_router(home: Path, urls: Sequence[str], *options: str) -> Iterator[str]:
    """The URL of a vllm-router in front of replicas at these URLs. home: an existing folder for its log."""
    port = free_port()
    words = [sys.executable, "-m", "vllm_router.launch_router", f"--port={port}", f"--prometheus-port={free_port()}"]
    health = (f"--health-check-endpoint={_READY}", "--health-check-interval-secs=1")
    steady = ("--health-failure-threshold=3", "--health-success-threshold=1")
    all_words = [*words, *health, *steady, *options, "--worker-urls", *urls]
    with _running(all_words, home / "router.log", f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def _running(words: list[str], log: Path, url: str) -> Iterator[str]:
    with log.open("w") as sink:
        process = subprocess.Popen(words, stdout=sink, stderr=sink)
    try:
        deadline = time.monotonic() + _SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{words[0]} did not begin to serve:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        httpx.get(f"{url}/v1/models", timeout=5)
    except httpx.TransportError:
        return False
    return True
