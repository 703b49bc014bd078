"""The server of a tuning: `trimtab-serve` of this environment, as a process of its own, started when it is needed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from trimtab.vectors import Profile
from trimtab.vectors.errors import printable

from ..errors import EndpointError

__all__ = ["MODEL_NAME", "Server", "with_dtype"]

MODEL_NAME = "tuned"
START_LIMIT_S = 1800
"""A large model is read from a slow disk and compiled within this."""
STOP_LIMIT_S = 40
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LAST_WORDS = 400


class Server:
    """A server of one model and a folder of profiles. Use it as a context, at whose end no process is left.

    It is started by the first call of `url`, since a tuning whose answers are all kept needs none.
    """

    def __init__(
        self,
        model: Path,
        profiles: Path,
        log: Path,
        arguments: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        *,
        program: Sequence[str] = (),
        name: str = MODEL_NAME,
    ) -> None:
        """arguments: further ones of the server. environment: what the process gets beside this one's.

        program: what serves, `trimtab-serve` of this environment by default. name: what requests call the model.
        """
        self._model, self._profiles, self._log = model, profiles, log
        self._arguments, self._environment = tuple(arguments), dict(environment or {})
        self._program, self.name = tuple(program), name
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    api_key = "none"

    def hold(self, profile: Profile) -> None:
        """Nothing to do: it serves all candidates from its start."""

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._process is not None:
            _stop(self._process)

    def url(self) -> str:
        """The base URL, up to and with /v1, of the running server.

        Raises:
            EndpointError: it did not come up, or has ended; the message gives its last words.
        """
        if self._process is None:
            self._start()
        elif self._process.poll() is not None:
            raise self._ended(f"ended with {self._process.returncode}")
        return self._url

    def _start(self) -> None:
        port = _free_port()
        command = [
            *(*(self._program or (_program(),)), str(self._model), "--steering-profiles", str(self._profiles)),
            *("--served-model-name", self.name, "--host", "127.0.0.1", "--port", str(port)),
            *("--disable-uvicorn-access-log", *self._arguments),
        ]
        print(f"the server starts (log: {self._log})", file=sys.stderr, flush=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                start_new_session=True,  # Ctrl-C is ours to hand on, once what is asked has been put away
                preexec_fn=_die_with_parent,
            )
        self._wait(f"http://127.0.0.1:{port}/health")
        self._url = f"http://127.0.0.1:{port}/v1"

    def _wait(self, url: str) -> None:
        assert self._process is not None
        here = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # HTTP_PROXY does not know this machine
        started = time.monotonic()
        while time.monotonic() - started < START_LIMIT_S:
            if self._process.poll() is not None:
                raise self._ended(f"ended with {self._process.returncode} before it answered")
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                here.open(url, timeout=5).close()
                return
            time.sleep(0.5)
        raise self._ended(f"did not answer within {START_LIMIT_S} s")

    def _ended(self, how: str) -> EndpointError:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        said = next(
            (line for line in reversed(lines) if line.startswith("trimtab-serve: ")), lines[-1] if lines else ""
        )
        return EndpointError(f"the server {how}; its log, {self._log}, ends: {printable(said[-_LAST_WORDS:])}")


def with_dtype(arguments: Sequence[str], model: Path) -> tuple[str, ...]:
    """The arguments of a server, with the dtype in which the model's states are read where they name none."""
    if any(one.split("=")[0] == "--dtype" for one in arguments):
        return tuple(arguments)
    from ..models.precision import device_named, resolved

    return ("--dtype", resolved("auto", model, device_named(None)), *arguments)


def _program() -> str:
    beside = Path(sys.executable).with_name("trimtab-serve")
    found = str(beside) if beside.is_file() else shutil.which("trimtab-serve")
    if found is None:
        raise EndpointError("trimtab-serve is not in this environment; install trimtab[gpu], or trimtab[cpu]")
    return found


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # a killed tuning must leave no server behind


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT_S)
    with contextlib.suppress(ProcessLookupError):  # all that it started is in its group, also where it died first
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
