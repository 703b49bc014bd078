"""Which answers became which, and how often a word occurs (docs/method.md §5 and 6).

Words are counted in three ways, side by side: the answer *is* the word, it holds it as a whole word, or it holds its
letters somewhere ("no" in "snow"). The last is what published counts often are; it is here to be compared with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..models.words import find_phrases

__all__ = ["Counted", "conversions", "lumped", "occurrences"]


@dataclass(frozen=True)
class Counted:
    """In how many answers a word occurs: as all of it, as a whole word of it, as letters of it."""

    exact: int
    word: int
    substring: int


def occurrences(answers: Iterable[str], word: str) -> Counted:
    """Count the answers that have a word (or a phrase), whatever the case of letters and a final period."""
    wanted = word.lower()
    exact = whole = within = 0
    for answer in answers:
        text = answer.lower()
        exact += text.strip().rstrip(".").strip() == wanted
        whole += bool(find_phrases(text, [wanted]))
        within += wanted in text
    return Counted(exact, whole, within)


def conversions(before: Mapping[str, str], after: Mapping[str, str]) -> Counter[tuple[str, str]]:
    """How often each original answer became each new one, over the samples that both have."""
    return Counter((before[one], after[one]) for one in before.keys() & after.keys())


def lumped(
    flow: Mapping[tuple[str, str], int], keep: Collection[str], rest: str = "(other)", another: str = "(another)"
) -> list[tuple[str, str, int]]:
    """A conversion matrix with all answers but `keep` made one, most frequent first.

    Where an answer outside `keep` became a different one outside it, that is `rest` → `another`, a change as before.
    """
    counted: Counter[tuple[str, str]] = Counter()
    for (old, new), count in flow.items():
        before = old if old in keep else rest
        after = new if new in keep else rest if old in keep or new == old else another
        counted[before, after] += count
    return [(old, new, count) for (old, new), count in sorted(counted.items(), key=lambda one: (-one[1], one[0]))]
