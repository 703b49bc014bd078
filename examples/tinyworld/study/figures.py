"""The figures that every part reports: accuracies, counts, flips, diversity; and the rows that the paper published."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from examples.tinyworld.ask import Type, all_words
from examples.tinyworld.study.exam import Exam
from trimtab.offline.evaluation.rates import lumped, occurrences
from trimtab.offline.evaluation.repetition import distinct, stutters
from trimtab.offline.findings import AnswersFound, Measured
from trimtab.offline.statistics import rate

Cell = str | float | None
TYPES: tuple[Type, ...] = ("yes/no", "number", "other")
_EXAMPLES = 8
_WORD = re.compile("|".join([*sorted(all_words(), key=len, reverse=True), "[a-z]+", "[0-9]"]))


def accuracies(exam: Exam, answers: Sequence[str]) -> list[float]:
    """Percent of answers that are right to the letter, for each of TYPES."""
    found = []
    for kind in TYPES:
        hits = [a == s.answer for s, a in zip(exam.samples, answers, strict=True) if s.type == kind]
        found.append(round(100 * sum(hits) / len(hits), 2))
    return found


def added(exam: Exam, answers: Sequence[str], words: Collection[str]) -> list[int]:
    """How many more answers are one of the words than without steering, and how many more hold one's letters."""
    before, after = ([occurrences(texts, word) for word in words] for texts in (exam.plain, answers))
    exact, letters = (
        sum(getattr(b, name) - getattr(a, name) for a, b in zip(before, after, strict=True))
        for name in ("exact", "substring")
    )
    return [exact, letters]


def diversity(answers: Sequence[str]) -> list[float]:
    """distinct-1, distinct-2, and the percentage of answers that stutter."""
    texts = [spaced(answer) for answer in answers]
    stuttering = sum(map(stutters, texts)) / len(texts)
    return [round(distinct(texts, 1), 3), round(distinct(texts, 2), 3), round(100 * stuttering, 1)]


def spaced(answer: str) -> str:
    """The answer with its words apart: a model that is steered too hard strings them together, "sorrysorrysorry"."""
    return " ".join(_WORD.findall(answer))


def changed(before: Sequence[str], after: Sequence[str]) -> Measured:
    """The share of answers that are no longer what they were."""
    return rate(sum(a != b for a, b in zip(before, after, strict=True)), len(before))


def percent(found: Measured) -> str:
    """A rate with its interval, such as "93.8 (88.1 to 96.9)"."""
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def became(title: str, steering: str, exam: Exam, answers: Sequence[str], keep: int = 14) -> AnswersFound:
    """original → new answers; all but the most frequent answers are lumped together."""
    flow = Counter(zip(exam.plain, answers, strict=True))
    common = [text for text, _ in Counter([*exam.plain, *answers]).most_common(keep)]
    turned = [(old, new) for old, new in zip(exam.plain, answers, strict=True) if old != new]
    return AnswersFound(
        title=title, steering=steering, flow=tuple(lumped(flow, common)), examples=tuple(turned[:_EXAMPLES])
    )
