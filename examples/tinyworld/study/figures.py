"""What the two programs report in common."""

from __future__ import annotations

import re

from examples.tinyworld.ask import all_words

Cell = str | float | None
_WORD = re.compile("|".join([*sorted(all_words(), key=len, reverse=True), "[a-z]+", "[0-9]"]))


def spaced(answer: str) -> str:
    """The answer with its words apart: a model that is steered too hard strings them together, "sorrysorrysorry"."""
    return " ".join(_WORD.findall(answer))
