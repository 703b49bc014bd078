"""The processes that engines live in: forked, where that can be, from one that has imported vLLM already.

The import takes 16 of the 20 seconds that an engine needs to start. An engine whose environment libraries read while
they are imported gets a process of its own from the beginning.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_FORKS, _FRESH = multiprocessing.get_context("forkserver"), multiprocessing.get_context("spawn")
_READ_BY_IMPORTS = {"TRITON_INTERPRET", "VLLM_CPU_OMP_THREADS_BIND"}


def start(
    options: Mapping[str, Any], log: Path, usual: Mapping[str, str], other: Mapping[str, str]
) -> tuple[BaseProcess, Connection]:
    """An engine's process and our end of the pipe to it.

    options: of `tests.engine.host.Host`. log: where it writes what it prints. usual: the environment that all engines
    have, other: what this one has beside it. Variables of our own environment come below both.
    """
    _FORKS.set_forkserver_preload(["tests.engine.imported"])
    ours, theirs = multiprocessing.Pipe()
    env = {**_unasked(), **usual, **other}
    fresh = not _READ_BY_IMPORTS.isdisjoint(other)
    with _environment(env if fresh else {**_unasked(), **usual}):
        make = _FRESH.Process if fresh else _FORKS.Process
        process: BaseProcess = make(target=_run, args=(theirs, dict(options), env, str(log)))
        process.start()
    theirs.close()
    return process, ours


def _run(commands: Connection, options: dict[str, Any], env: dict[str, str], log: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(sink, stream)
    from tests.engine import host  # not above: what it imports reads the environment

    host.serve(commands, options)


def _unasked() -> dict[str, str]:
    """Our environment, in which other tests may have asked for trimtab."""
    return {name: value for name, value in os.environ.items() if name != "VLLM_TRIMTAB"}


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    """A new process begins with the environment of ours, and this is the one moment at which it can be another."""
    kept = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
