"""The runner of the parts leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.engine.engine import ROOT

# A part that waits for a server, in place of one that takes minutes; the server only sleeps.
_WAITS = """
import sys, time, types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tests.engine.server import Server
from tests.reliability import run, served

def part(work, share):
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
    server = served._running[work] = Server(work / "log", work, work, program=sleeps, wait=False)
    print(server.process.pid, flush=True)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(server.process.wait)
        time.sleep(600)

sys.modules["tests.reliability.parts.doors"] = types.SimpleNamespace(run=part)
sys.argv[1:] = ["--part", "doors", "--again", "--out", sys.argv[1]]
sys.exit(run.main())
"""


def test_sigterm_ends_its_server_too(tmp_path: Path) -> None:
    out = tmp_path / "out" / "reliability.json"
    running = subprocess.Popen(
        [sys.executable, "-c", _WAITS, str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        server = int(running.stdout.readline())
        running.terminate()
        assert running.wait(60) == 128 + signal.SIGTERM
    finally:
        running.kill()
    assert not psutil.pid_exists(server)
    assert not out.exists(), "a run that was ended has no results"
