"""What a state is labelled by, so that "these against those" can be said of it.

    answer   the model's own: the word that the state predicts, as its rule says
    truth    the sample's `answer`, which is the data set's
    type     the sample's `type`
    COLUMN   any other key of the sample

Labels are in lower case, without space around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from trimtab.vectors.errors import printable

from ..errors import DataError
from .samples import Sample

__all__ = ["ANSWER", "TRUTH", "check_labels", "label_of", "tidy"]

ANSWER, TRUTH, TYPE = "answer", "truth", "type"


def label_of(sample: Sample, by: str) -> str | None:
    """What labels every state of a sample: "" where the sample does not say, None where each state has its own word."""
    if by == ANSWER:
        return None
    if by in (TRUTH, TYPE):
        return tidy(sample.answer if by == TRUTH else sample.type)
    return tidy(sample.columns.get(by, ""))


def tidy(label: str) -> str:
    """A label as it is kept and looked up: one line, in lower case."""
    return printable(" ".join(label.lower().split()))


def check_labels(samples: Sequence[Sample], by: str, data: Path) -> None:
    """Passes when at least one sample has such a label.

    Raises:
        DataError: none has; names the columns that there are.
    """
    if by == ANSWER or any(label_of(sample, by) for sample in samples):
        return
    columns = list(dict.fromkeys(name for sample in samples for name in sample.columns))
    known = [ANSWER, *(name for name in (TRUTH, TYPE) if any(label_of(one, name) for one in samples)), *columns]
    close = get_close_matches(by, known, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    raise DataError(
        f"{data}: no sample has a label {by!r}; {meant}allowed here are {', '.join(map(printable, known[:20]))}"
    )
