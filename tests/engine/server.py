"""`python serve.py` as an operator starts it, and its API as a client sees it."""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

from examples.tinyworld.draw import draw
from tests.engine.asking import Ask, scene_of
from tests.engine.engine import ROOT, SMALL

MODEL_NAME = "tinyworld"
CHAT = "/v1/chat/completions"
_PATIENCE = 600
_SETTINGS = (
    "--dtype=float32",
    "--enforce-eager",
    "--max-model-len=512",
    "--max-num-seqs=16",
    "--block-size=32",
    "--gpu-memory-utilization=0.3",
    f"--served-model-name={MODEL_NAME}",
    "--host=127.0.0.1",
)


class Server:
    """A running server and two clients of it.

    profiles: their folder, or its URL. settings: further arguments of `trimtab-serve`. program: how it is started,
    folder: where. env: further variables.
    fork: its engine's process is forked from the one that has imported vLLM. False imports vLLM anew, which takes 13 s:
    as an operator's server does it. wait: False returns at once. port: 0 for a free one.
    """

    def __init__(
        self,
        log: Path,
        model: Path,
        profiles: Path | str,
        *settings: str,
        program: Sequence[str] = (sys.executable, "serve.py"),
        folder: Path = ROOT,
        env: Mapping[str, str] | None = None,
        fork: bool = True,
        wait: bool = True,
        port: int = 0,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))
            port = free.getsockname()[1]
        command = [*program, str(model), "--steering-profiles", str(profiles), *_SETTINGS, *settings]
        small = {name: value for name, value in SMALL.items() if name != "VLLM_ENABLE_V1_MULTIPROCESSING"}
        small["VLLM_ENABLE_RESPONSES_API_STORE"] = "1"
        small["VLLM_WORKER_MULTIPROC_METHOD"] = "fork" if fork else "spawn"
        self._log = log
        with log.open("w") as sink:
            self.process = subprocess.Popen(
                [*command, f"--port={port}"],
                cwd=folder,
                env={**os.environ, **small, **(env or {})},
                stdout=sink,
                stderr=sink,
            )
        url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=url, timeout=_PATIENCE)
        self.openai = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=_PATIENCE, max_retries=0)
        if not wait:
            return
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def chat(self, ask: Ask, headers: Any = None, **more: Any) -> httpx.Response:
        """One chat completion, whatever comes of it."""
        return self.http.post(CHAT, json={**body(ask), **more}, headers=headers)

    def text(self, ask: Ask) -> str:
        """What the openai client is told."""
        extra = {} if ask.steering is None else {"steering": ask.steering}
        reply = self.openai.chat.completions.create(**body(ask, steering=False), extra_body=extra)
        return str(reply.choices[0].message.content)

    def counted(self) -> dict[str, float]:
        """Requests by the label `profile`, from /metrics."""
        lines = self.http.get("/metrics").text.splitlines()
        found = [
            line.partition("trimtab_requests_total{")[2] for line in lines if line.startswith("trimtab_requests_total")
        ]
        return {
            label.removeprefix('profile="').removesuffix('"'): float(value)
            for label, value in (line.split("} ") for line in found)
        }

    def processes(self) -> list[psutil.Process]:
        """All that it has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def engines(self) -> list[psutil.Process]:
        """Those of them that are engines."""
        return [process for process in self.processes() if "EngineCore" in " ".join(process.cmdline())]

    def stop(self) -> int:
        """Its exit status after SIGTERM."""
        self.http.close()
        self.openai.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.http.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.5)
        raise RuntimeError("the server did not come up:\n" + "".join(self._log.open().readlines()[-40:]))


def body(ask: Ask, *, steering: bool = True) -> dict[str, Any]:
    """The JSON body of a chat completion."""
    content: list[dict[str, Any]] = [{"type": "text", "text": ask.text}]
    if ask.scene is not None:
        file = io.BytesIO()
        draw(scene_of(ask.scene)).save(file, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        content.insert(0, {"type": "image_url", "image_url": {"url": url}})
    found = {
        "model": MODEL_NAME,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": ask.max_tokens,
    }
    return {**found, "steering": ask.steering} if steering and ask.steering is not None else found
