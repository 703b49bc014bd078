"""How varied texts are, and whether a steering has made them stutter (docs/method.md §6)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ..findings import Measured
from ..models.words import words_in
from ..statistics import rate

__all__ = ["distinct", "repetition", "stutters"]

_TIMES = 3
_LONGEST = 4
_STRUNG = re.compile(r"([1-9])\1{3}|(?!00)([^\W_]{2,})\2\2", re.IGNORECASE)
"""The same without spaces, which is how some tokenizers write a stutter: "blackblackblack", "2men2men2men", "121212".
One digit counts from four times on, since "1999" is a year; zeros never do, since "1000000" is a number."""
_PIECE = re.compile(r"\d{1,3}(?:[.,]\d{3})+(?!\d)|\d?\d(?::\d\d)+|[^\W_]+")
"""What is compared: words, the parts that a hyphen or apostrophe joins, numbers such as 1,000,000,000, and times."""


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
    """Whether one to four words come three times in a row, as in "black black black", also without spaces."""
    if _STRUNG.search(text):
        return True
    words = _PIECE.findall(text.lower())
    for size in range(1, _LONGEST + 1):
        for at in range(len(words) - size * _TIMES + 1):
            if words[at : at + size] * _TIMES == words[at : at + size * _TIMES]:
                return True
    return False


def repetition(texts: Collection[str]) -> tuple[Measured, dict[str, float]]:
    """The share of answers that stutter; and distinct-1 and -2, where an answer has that many words."""
    longest = max((len(words_in(text)) for text in texts), default=0)
    varied = {f"distinct-{n}": distinct(texts, n) for n in (1, 2) if n <= longest}
    return rate(sum(map(stutters, texts)), len(texts)), varied
