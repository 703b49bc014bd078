"""How far a long run is: a bar on a terminal, a line now and then elsewhere (a log, a notebook, CI)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

from tqdm import tqdm

__all__ = ["begins", "progress", "tracked"]

_Item = TypeVar("_Item")

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


@contextmanager
def progress(
    what: str,
    total: int,
    done: int = 0,
    *,
    unit: str = "sample",
    show: bool = True,
    every: float = EVERY,
    leave: bool = True,
) -> Iterator[Callable[[int], None]]:
    """Within the context, call what it yields with each number of samples that are done; it writes to stderr.

    done: samples that an earlier run has done already; they do not count for the time that is left. unit: what is
    counted, in the singular. leave: False takes the bar off the terminal at the end.
    """
    stream, show = sys.stderr, show and total > 0
    if show and not stream.isatty():
        yield _Lines(what, total, done, unit, stream, every)
        return
    with tqdm(total=total, initial=done, desc=what, unit=unit, disable=not show, leave=leave) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance


def tracked(what: str, items: Iterable[_Item], total: int, *, unit: str, show: bool = True) -> Iterator[_Item]:
    """The items, with how far they are; what is not gone through to its end is not called done."""
    with progress(what, total, unit=unit, show=show) as advance:
        for item in items:
            yield item
            advance(1)


def begins(what: str, show: bool = True) -> None:
    """One line for what takes a while and cannot say how long, such as loading a model."""
    if show:
        print(f"{what} …", file=sys.stderr, flush=True)


class _Lines:
    def __init__(self, what: str, total: int, done: int, unit: str, stream: TextIO, every: float) -> None:
        self._what, self._total, self._done, self._unit = what, total, done, unit
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
        print(f"{self._what}: {self._done:,} of {self._total:,} {self._unit}s, {how}", file=self._stream, flush=True)


def _spelt(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
