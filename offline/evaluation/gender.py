"""Captions that name a gender, and what a steering toward neutral words did to them (docs/method.md §5).

A caption is *converted* when it had a gendered word, has none after, and has a neutral one. One that merely lost its
gendered word is a *deletion*, and counted apart. A converted caption is *otherwise unchanged* when every word that is
neither gendered nor neutral is the same; "a" may become "an", and the other way round, directly before such a word. A
converted caption that changed elsewhere, or repeats itself as it did not before, is *broken*.

Words are whole words: "mango" has no "man". A word counts in its other forms too: with an apostrophe ("man's", "he’s"),
in the plural ("dancers" where "dancer" is in the list), and at the end of a compound ("policemen", "fire-woman"), for
in English the last part says what it is: "man-made" is nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ..findings import Measured
from ..models.words import find_phrases, words_in
from ..statistics import rate
from .effect import broken

__all__ = ["GENDERED", "KINDS", "NEUTRAL", "Lexicon", "converted", "intact"]

_GENDERED = """
    man men woman women boy boys girl girls male males female females guy guys lady ladies gentleman gentlemen
    he him his himself she her hers herself father mother dad daddy mom mommy mum mama papa son daughter brother sister
    husband wife wives uncle aunt nephew niece grandfather grandmother grandpa grandma grandson granddaughter
    stepfather stepmother boyfriend girlfriend bride bridegroom bridesmaid housewife housewives
    waitress actress hostess stewardess princess lad dude mr mrs ms sir madam
"""
_NEUTRAL = """
    person persons people child children kid kids adult adults human humans someone somebody they them their theirs
    themself themselves individual parent grandparent sibling spouse teenager firefighter officer
"""
GENDERED = tuple(_GENDERED.split())
NEUTRAL = tuple(_NEUTRAL.split())

Kind = Literal["gendered", "neutral", "neither"]
KINDS: tuple[Kind, ...] = ("gendered", "neutral", "neither")

_ENDINGS = ("man", "men", "woman", "women", "boy", "girl", "lady", "person", "people", "child", "children")
_NO_COMPOUND = """
    human woman women german roman norman ottoman shaman talisman caiman cayman doberman walkman snowman snowmen
    omen abdomen specimen regimen ramen stamen acumen semen hymen lumen bitumen yemen amen malady tallboy highboy lowboy
"""
_NO_COMPOUNDS = frozenset(_NO_COMPOUND.split())
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ＇`´′‛", "'"))


@dataclass(frozen=True)
class Lexicon:
    """The words (or phrases) that count, in lower case."""

    gendered: tuple[str, ...] = GENDERED
    neutral: tuple[str, ...] = NEUTRAL

    def words(self, caption: str) -> list[str]:
        """The gendered words of a caption, in order, in the form in which they are listed."""
        return [word.text for word in find_phrases(self._listed_forms(caption), self.gendered)]

    def kind(self, caption: str) -> Kind:
        """gendered as soon as one word is; neutral where none is and a neutral one is there."""
        if self.words(caption):
            return "gendered"
        return "neutral" if find_phrases(self._listed_forms(caption), self.neutral) else "neither"

    def same(self, before: str, after: str) -> bool:
        """Whether two captions are equal but for the gendered and neutral words in them, and a or an before these."""
        return self._frame(before) == self._frame(after)

    def _frame(self, caption: str) -> list[str]:
        """The words of a caption with each listed one left blank, but for what an apostrophe adds to it."""
        words = [word.text for word in words_in(caption.translate(_APOSTROPHES))]
        forms = [self._form(word) for word in words]
        frame, at = [], 0
        text = " ".join(forms)
        for found in find_phrases(text, (*self.gendered, *self.neutral)):
            start = text.count(" ", 0, found.start)
            frame += words[at:start]
            if frame and frame[-1] == "an":
                frame[-1] = "a"
            at = start + found.text.count(" ") + 1
            ending = "" if words[at - 1] == forms[at - 1] else words[at - 1].partition("'")[2]
            frame.append(f"*{ending}")
        return [*frame, *words[at:]]

    @cached_property
    def _listed(self) -> frozenset[str]:
        return frozenset(word for phrase in (*self.gendered, *self.neutral) for word in phrase.split())

    def _listed_forms(self, caption: str) -> str:
        """The caption with each word in the form in which it is listed, if it is in some form."""
        return " ".join(self._form(word.text) for word in words_in(caption.translate(_APOSTROPHES)))

    def _form(self, word: str) -> str:
        if word in self._listed:
            return word
        last = word.partition("'")[0].rpartition("-")[2]
        for form in _singulars(last):
            if form in self._listed:
                return form
        for form in _singulars(last):
            ending = next((one for one in sorted(_ENDINGS, key=len, reverse=True) if form.endswith(one)), None)
            if ending in self._listed and form not in _NO_COMPOUNDS:
                return str(ending)
        return word


def _singulars(word: str) -> list[str]:
    """A word, and what it is the plural of if it is a regular one."""
    found = [word]
    if word.endswith("ies"):
        found.append(word[:-3] + "y")
    if word.endswith("es"):
        found.append(word[:-2])
    if word.endswith("s"):
        found.append(word[:-1])
    return found


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


def intact(before: Mapping[str, str], after: Mapping[str, str], lexicon: Lexicon) -> dict[str, Measured]:
    """How many conversions left the rest of a caption alone, how many broke it, and what the others lost."""
    shared = sorted(before.keys() & after.keys())
    sources = [one for one in shared if lexicon.kind(before[one]) == "gendered"]
    turned = [one for one in sources if lexicon.kind(after[one]) == "neutral"]
    whole = sum(lexicon.same(before[one], after[one]) for one in turned)
    hurt = sum(broken(before[one], after[one], True, lexicon.same) for one in turned)
    others = [one for one in shared if lexicon.kind(before[one]) != "gendered"]
    moved = sum(not lexicon.same(before[one], after[one]) for one in others)
    return {
        "gendered captions converted and otherwise unchanged": rate(whole, len(sources)),
        "gendered captions converted but broken": rate(hurt, len(sources)),
        "other captions with another word changed": rate(moved, len(others)),
    }
