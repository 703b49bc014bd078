"""Envoy and vllm-router in front of replicas, as tests start them. Both come from PyPI."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from socket import create_server
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).parents[1]
ENVOY = ROOT / "ops" / "envoy" / "envoy.yaml"
_SECONDS = 60


def free_port() -> int:
    with create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def envoy_program() -> str:
    found = find_spec("envoy")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).with_name("_bin") / "envoy")


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
    health = ("--health-check-endpoint=/v1/steering/ready", "--health-check-interval-secs=1")
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
