"""Patterns of names: a name, or one with `*` for any run of characters. Nothing else is special."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

__all__ = ["ALL", "check_pattern", "covered_by", "is_pattern", "matches"]

ALL = "*"


def is_pattern(text: str) -> bool:
    """Whether it stands for more than one name."""
    return ALL in text


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern stands for a name."""
    return _expression(pattern).fullmatch(name) is not None


def covered_by(pattern: str, earlier: Iterable[str]) -> str | None:
    """The first of `earlier` that stands for all that `pattern` stands for; None where none does."""
    # No name holds a `*`. So an earlier pattern that takes this one as if it were a name takes each of its names.
    return next((one for one in earlier if matches(one, pattern)), None)


def check_pattern(text: str, what: str) -> str:
    """`text`, when it is a pattern of names.

    Raises:
        ValueError: it has a character that no name has.
    """
    if not re.fullmatch(r"[A-Za-z0-9*][A-Za-z0-9._@*-]{0,127}", text):
        raise ValueError(
            f"{text[:80]!r} is no pattern of {what}; allowed are letters, digits, '.', '_', '-', and '*' for any run "
            "of characters"
        )
    if ALL * 2 in text:
        raise ValueError(f"{text[:80]!r} has '**'; one '*' stands for any run of characters")
    return text


@functools.lru_cache(maxsize=1024)
def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split(ALL))), re.DOTALL)
