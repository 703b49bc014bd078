"""How the server ends when it is asked to. The last laws of the server that all HTTP laws share."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.engine.server import Server

pytestmark = pytest.mark.engine


def test_sigterm_stops_the_server_and_all_that_it_started(server: Server) -> None:
    assert server.http.get("/health").status_code == 200
    started = server.processes()
    assert server.engines()
    assert server.stop() == 0
    assert not [process for process in started if process.is_running()]


def test_sigterm_ends_a_server_whose_engine_never_gets_up(model: Path, profiles: Path, tmp_path: Path) -> None:
    starting = Server(tmp_path / "log", model, profiles, wait=False)
    try:
        deadline = time.monotonic() + 300
        while not starting.engines():
            assert starting.process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, "no engine was seen"
            time.sleep(0.1)
        started = starting.processes()
        for engine in starting.engines():
            engine.send_signal(signal.SIGSTOP)
    finally:
        code = starting.stop()
    assert code == 0
    assert not [process for process in started if process.is_running()]
