"""Starts `python serve.py` as a user would, waits until it answers, and stops it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from examples.tinyworld.precision import served_dtype

SERVE = Path(__file__).parents[3] / "serve.py"
MODEL_NAME = "tinyworld"
START_LIMIT_S = 600
STOP_LIMIT_S = 30
BLOCK = 32
"""Tokens a KV block: the smallest that vLLM's CPU attention takes, so that prompts of 80 tokens span several."""


class ServerError(Exception):
    """The server did not come up; the message names its log."""


@contextlib.contextmanager
def serving(model: Path, profiles: Path, log: Path, dtype: str | None = None) -> Iterator[str]:
    """A running server; yields its base URL, such as http://127.0.0.1:8000/v1. Its output goes to `log`.

    dtype: of the model, by default what suits the processor.
    """
    port = _free_port()
    command = [
        *(sys.executable, str(SERVE), str(model), "--steering-profiles", str(profiles)),
        *("--served-model-name", MODEL_NAME, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", dtype or served_dtype()),
        *("--max-model-len", "512", "--block-size", str(BLOCK), "--max-num-seqs", "64"),
        "--disable-uvicorn-access-log",
    ]
    # The CPU backend would take most of the memory for its KV cache; this model needs next to nothing.
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    started = time.monotonic()
    with tqdm(desc="server starts", unit="s", bar_format="{desc}: {elapsed}") as bar:
        while time.monotonic() - started < START_LIMIT_S:
            if process.poll() is not None:
                raise ServerError(f"the server ended with {process.returncode}; its last words:\n{_tail(log)}")
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(url, timeout=5).close()
                return
            time.sleep(0.5)
            bar.update()
    raise ServerError(f"the server did not answer within {START_LIMIT_S} s; its last words:\n{_tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
