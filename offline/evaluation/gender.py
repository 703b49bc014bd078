"""Captions that name a gender, and what a steering toward neutral words did to them (docs/method.md §5).

A caption is *converted* when it had a gendered word, has none after, and has a neutral one. One that merely lost its
gendered word is a *deletion*, and counted apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..findings import Measured
from ..models.words import find_phrases
from ..statistics import rate

__all__ = ["GENDERED", "NEUTRAL", "Lexicon", "converted"]

_GENDERED = """
    man men woman women boy boys girl girls male males female females guy guys lady ladies gentleman gentlemen
    he him his himself she her hers herself father mother dad mom son daughter brother sister husband wife
"""
_NEUTRAL = """
    person persons people child children kid kids adult adults human humans someone they them their
"""
GENDERED = tuple(_GENDERED.split())
NEUTRAL = tuple(_NEUTRAL.split())

Kind = Literal["gendered", "neutral", "neither"]


@dataclass(frozen=True)
class Lexicon:
    """The words that count, in lower case; whole words only."""

    gendered: tuple[str, ...] = GENDERED
    neutral: tuple[str, ...] = NEUTRAL

    def words(self, caption: str) -> list[str]:
        """The gendered words of a caption, in order."""
        return [word.text for word in find_phrases(caption, self.gendered)]

    def kind(self, caption: str) -> Kind:
        """gendered as soon as one word is; neutral where none is and a neutral one is there."""
        if self.words(caption):
            return "gendered"
        return "neutral" if find_phrases(caption, self.neutral) else "neither"


def converted(before: Mapping[str, str], after: Mapping[str, str], lexicon: Lexicon) -> dict[str, Measured]:
    """What became of the captions that were gendered, and how many of the others became so.

    before, after: captions by sample; samples that both have count.
    """
    shared = sorted(before.keys() & after.keys())
    became = [lexicon.kind(after[one]) for one in shared if lexicon.kind(before[one]) == "gendered"]
    others = [lexicon.kind(after[one]) for one in shared if lexicon.kind(before[one]) != "gendered"]
    return {
        "gendered captions converted": rate(became.count("neutral"), len(became)),
        "gendered captions with the word deleted": rate(became.count("neither"), len(became)),
        "gendered captions still gendered": rate(became.count("gendered"), len(became)),
        "other captions made gendered": rate(others.count("gendered"), len(others)),
    }
