"""The process of an engine that captures: started, asked, waited for, and ended whatever happens.

The two sides share a folder and nothing else; what they say to each other is in `trimtab.vectors.tasks`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from trimtab.vectors import tasks
from trimtab.vectors.errors import printable
from trimtab.vectors.tasks import Answered, Job, Task

from ..errors import ModelError
from .store import Float32

__all__ = ["EngineProcess"]

_LOOK = 0.02
"""Seconds between two looks for an answer."""
_GRACE = 20.0
"""Seconds that an engine gets to end before it is killed."""
_LAST_LINES = 3


class EngineProcess:
    """An engine in a process group of its own. Use it as a context manager: nothing of it outlives the context."""

    def __init__(self, job: Job) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="trimtab-capture-")
        self._job = job

    def __enter__(self) -> EngineProcess:
        self._job.write(self._path)
        with self._log.open("wb") as log:
            # A session of its own: a terminal's Ctrl-C reaches this process alone, which then ends that one.
            self._process = subprocess.Popen(
                [sys.executable, "-m", tasks.MODULE, str(self._path)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(BrokenPipeError):
            self._input.close()  # an engine that has nothing to do ends here
        if kind is not None:
            self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        self._signal(signal.SIGKILL)  # and workers of it that are still there
        self._process.wait()
        self._folder.cleanup()

    def ask(self, number: int, asked: Sequence[Task]) -> None:
        """Give the engine a file of tasks."""
        tasks.write_tasks(self._path, number, asked)
        with suppress(BrokenPipeError):  # `answers` says what happened
            self._input.write(f"{number}\n".encode())
            self._input.flush()

    def answers(self, number: int) -> Iterator[tuple[Answered, dict[int, Float32]]]:
        """What became of these tasks, with the rows of each by layer, float32 [n, D]; waits for it.

        Raises:
            ModelError: the engine has ended.
        """
        while (found := tasks.answers_in(self._path, number)) is None:
            if self._process.poll() is not None:
                raise ModelError(self._ending())
            time.sleep(_LOOK)
        return found

    @property
    def _path(self) -> Path:
        return Path(self._folder.name)

    @property
    def _log(self) -> Path:
        return self._path / "log"

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _ending(self) -> str:
        lines = [line.strip() for line in self._log.read_text("utf-8", "replace").splitlines() if line.strip()]
        code = self._process.returncode
        if own := [line for line in lines if line.startswith(f"{tasks.PROGRAM}: ")]:
            return f"{self._job.model}: {own[-1].removeprefix(f'{tasks.PROGRAM}: ')}"
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        said = printable(" / ".join(lines[-_LAST_LINES:])[-600:])
        return f"{self._job.model}: vLLM's engine {how}; the last it said: {said or 'nothing'}"
