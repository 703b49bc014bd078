"""How far a long run is: a bar on a terminal, a line now and then elsewhere (a log, a notebook, CI)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

__all__ = ["progress"]

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


@contextmanager
def progress(
    what: str, total: int, done: int = 0, *, show: bool = True, every: float = EVERY
) -> Iterator[Callable[[int], None]]:
    """Within the context, call what it yields with each number of samples that are done; it writes to stderr.

    done: samples that an earlier run has done already; they do not count for the time that is left.
    """
    stream = sys.stderr
    if show and not stream.isatty():
        yield _Lines(what, total, done, stream, every)
        return
    with tqdm(total=total, initial=done, desc=what, unit="sample", disable=not show) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance


class _Lines:
    def __init__(self, what: str, total: int, done: int, stream: TextIO, every: float) -> None:
        self._what, self._total, self._done = what, total, done
        self._first, self._stream, self._every = done, stream, every
        self._began = self._said = time.monotonic()
        self._say("begins" if not done else "goes on")

    def __call__(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._done >= self._total:
            self._say("done")
        elif now - self._said >= self._every:
            self._said = now
            left = (now - self._began) / (self._done - self._first) * (self._total - self._done)
            self._say(f"about {_spelt(left)} left")

    def _say(self, how: str) -> None:
        print(f"{self._what}: {self._done:,} of {self._total:,} samples, {how}", file=self._stream, flush=True)


def _spelt(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
