"""How varied texts are, and whether a steering has made them stutter (docs/method.md §6)."""

from __future__ import annotations

from collections.abc import Iterable

from ..models.words import words_in

__all__ = ["distinct", "stutters"]

_TIMES = 3
_LONGEST = 4


def distinct(texts: Iterable[str], n: int) -> float:
    """distinct-n: different n-grams of words over all n-grams of all texts; 0 where there is none."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        words = [word.text for word in words_in(text)]
        grams = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else 0.0


def stutters(text: str) -> bool:
    """Whether one to four words come three times in a row, as in "black black black"."""
    words = [word.text for word in words_in(text)]
    for size in range(1, _LONGEST + 1):
        for at in range(len(words) - size * _TIMES + 1):
            if words[at : at + size] * _TIMES == words[at : at + size * _TIMES]:
                return True
    return False
