"""How the server ends when it is asked to. The last laws of the server that all HTTP laws share."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.engine.asking import caption
from tests.engine.server import CHAT, Server, body

pytestmark = pytest.mark.engine


def test_sigterm_lets_a_running_answer_end_and_stops_all_that_was_started(server: Server) -> None:
    started = server.processes()
    assert server.engines()
    # Long enough to run on when the signal comes, and short enough for the 15 seconds on a busy machine.
    long = {**body(caption(5, max_tokens=60)), "ignore_eos": True, "stream": True}
    with server.http.stream("POST", CHAT, json=long) as reply:
        lines = reply.iter_lines()
        next(line for line in lines if line)
        server.process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert any('"finish_reason":"length"' in line for line in rest)
    assert server.process.wait(60) == 0
    assert not [process for process in started if process.is_running()]


@pytest.mark.slow  # tests/plugin/test_supervise.py tries servers that are still starting, or deaf
def test_sigterm_ends_a_server_whose_engine_never_gets_up(model: Path, profiles: Path, tmp_path: Path) -> None:
    starting = Server(tmp_path / "log", model, profiles, "--shutdown-timeout=1", wait=False)
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
