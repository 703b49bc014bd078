"""Watches over a server that runs in a child process, so that its exit code is true and nothing outlives it.

vLLM 0.32's server returns as if it had been asked to when its engine dies, and may wait for ever where a signal meets
it before the engine is up. Seen from outside, both are simple: whether a signal came, the parent knows, and what does
not end in time it kills.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import psutil

__all__ = ["supervise"]

GRACE = 20.0
"""Seconds from the first signal until what still runs is killed, beside the time to drain. Kubernetes waits 30."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ORPHANS = 5.0  # seconds for processes that a server left behind
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_NOTE = struct.Struct("dd4000s")  # what a child that serves tells its parent
_NOT_SERVING = -1.0

Serving = Callable[[float, float, str], None]


def supervise(program: str, serve: Callable[[Serving], int], *, grace: float = GRACE) -> int:
    """Run `serve` in a child process until it ends.

    SIGTERM and SIGINT go on to the child.

    Args:
        program: name to begin messages with.
        serve: returns an exit code. It calls its argument when it begins to serve, with the seconds that the server
            may take to finish its requests when it is stopped; with those from SIGTERM until it is told, for those who
            send it requests to look elsewhere; and with the path of a file that is made as soon as a signal comes.
        grace: seconds that a stopped server gets beside those.

    Returns:
        0 where a signal asked for the end; else the child's code, 128 + n where signal n killed it, and 1 where it
        began to serve and then claims success: a server does not end by itself.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # a grandchild whose parent dies becomes our child
    shared = mmap.mmap(-1, _NOTE.size)
    _NOTE.pack_into(shared, 0, _NOT_SERVING, 0.0, b"")
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until both sides know what to do with one
    child = os.fork()
    if child == 0:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        os.setpgid(0, 0)  # a terminal's Ctrl-C reaches the parent alone, which hands it on once
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

        def begin(seconds: float, delay: float = 0.0, marker: str = "") -> None:
            _NOTE.pack_into(shared, 0, seconds, delay, marker.encode())

        return serve(begin)
    asked: list[int] = []
    told = False

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        _, delay, marker = _NOTE.unpack_from(shared)
        if len(asked) > 1 or number != signal.SIGTERM or not _marked(marker) or delay <= 0:
            hand_on(number)
        else:
            signal.setitimer(signal.ITIMER_REAL, delay)

    def hand_on(number: int) -> None:
        nonlocal told
        os.kill(child, number)  # no other process: it has its own way to end the rest
        if not told:
            signal.setitimer(signal.ITIMER_REAL, grace + max(0.0, _NOTE.unpack_from(shared)[0]))
        told = True

    def late(number: int, frame: FrameType | None) -> None:
        if not told:
            hand_on(asked[0])
            return
        _say(program, "it did not stop in time and is killed")
        os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, late)
    for number in _SIGNALS:
        signal.signal(number, ask)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    # Left unreaped until the handlers are off: a signal must not reach another process that got the child's number.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _, status = os.waitpid(child, 0)
    _end_orphans()
    serving = _NOTE.unpack_from(shared)[0] != _NOT_SERVING
    return 0 if asked else _exit_code(program, os.waitstatus_to_exitcode(status), serving)


def _marked(path: bytes) -> bool:
    """Make the file that says that the server is about to end. False where there is none to make, or it cannot be."""
    name = path.rstrip(b"\0")
    with suppress(OSError):
        if name:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return True
    return False


def _exit_code(program: str, code: int, serving: bool) -> int:
    if code < 0:
        _say(program, f"the server was killed by {signal.Signals(-code).name}")
        return 128 - code
    if code == 0 and serving:
        _say(program, "the server ended though nothing asked it to: its engine died; the log above says of what")
        return 1
    return code


def _end_orphans() -> None:
    orphans = psutil.Process().children(recursive=True)
    for orphan in orphans:
        orphan.terminate()
    deaf = psutil.wait_procs(orphans, timeout=_ORPHANS)[1]
    for orphan in deaf:
        orphan.kill()
    psutil.wait_procs(deaf, timeout=_ORPHANS)


def _say(program: str, sentence: str) -> None:
    print(f"{program}: {sentence}", file=sys.stderr, flush=True)
