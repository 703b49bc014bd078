"""How VQAv2 makes two answers comparable: punctuation, numbers, articles, contractions.

Written from the published rules of the official evaluator, its oddities included, because a figure is comparable only
with them: a period goes unless a digit follows (a digit before it does not keep it), at most 32 periods of an answer
go, and a contraction whose first letter must be capital never matches, since all letters are small by then.
"""

from __future__ import annotations

import re

__all__ = ["normalised", "one_line", "plain"]

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_NUMBERS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
_ARTICLES = frozenset({"a", "an", "the"})

# Each is found by what is left of it without one of its apostrophes, or without all of them.
_WITHOUT_APOSTROPHE = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
    it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
    somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's
    they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
    where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_TWO_APOSTROPHES = """
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
    there'd've they'd've we'd've who'd've wouldn't've you'd've
"""
_IRREGULAR = {
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "somebody'd": "somebodyd",
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}


def _lacking_one(contraction: str) -> list[str]:
    """A contraction with two apostrophes, without the first and without the second."""
    first, last = contraction.index("'"), contraction.rindex("'")
    return [contraction[:at] + contraction[at + 1 :] for at in (first, last)]


_CONTRACTIONS = {
    **{contraction.replace("'", ""): contraction for contraction in _WITHOUT_APOSTROPHE.split()},
    **{short: whole for whole in _TWO_APOSTROPHES.split() for short in _lacking_one(whole)},
    **_IRREGULAR,
}


def one_line(answer: str) -> str:
    """An answer without line breaks and tabs, and without space around it: all that is always done to it."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def plain(answer: str) -> str:
    """An answer as annotators type theirs: on one line, in small letters, without a period at the end."""
    return one_line(answer).lower().rstrip(".").rstrip()


def normalised(answer: str) -> str:
    """An answer as the official evaluator compares it: "Two." is "2", "the  couch" is "couch", "dont" is "don't"."""
    words = [_NUMBERS.get(word, word) for word in _without_punctuation(one_line(answer)).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    """A mark at a word's edge goes, one inside a word becomes a space; in a text like "1,000" all of them go."""
    number = _COMMA_IN_NUMBER.search(text) is not None
    out = text
    for mark in _PUNCTUATION:
        gone = number or f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if gone else " ")
    return _PERIOD.sub("", out, count=_MOST_PERIODS)
