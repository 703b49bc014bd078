"""Which tokens of a tokenizer are words that mean something by themselves (docs/method.md §2, text grounding)."""

from __future__ import annotations

from typing import Any

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from .words import words_in

__all__ = ["STOP_WORDS", "Vocabulary"]

# Nothing here is a stop word where a picture is described or asked about: the list counts them in all the same.
_ANSWERS = "no nobody none nothing"
_NUMBERS = (
    "one two three four five six eight nine ten eleven twelve fifteen twenty forty fifty sixty hundred first third"
)
_PERSONS = "he him himself his she her hers herself they them themselves their"
_THINGS = "back bill bottom cry empty fire front full mill mine side system thick thin top"

STOP_WORDS = ENGLISH_STOP_WORDS - set(f"{_ANSWERS} {_NUMBERS} {_PERSONS} {_THINGS}".split())
"""scikit-learn's English list without numbers, answers ("no"), third persons ("his") and words for things."""

_MARKS = ("Ġ", "▁")  # how byte-level BPE and SentencePiece write the space before a word
_SHORTEST = 3  # shorter runs of ASCII letters are fragments nearly always; "no" is the exception that counts


class Vocabulary:
    """The words among a tokenizer's tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)
        self._tokens = tokenizer.get_vocab()

    def word(self, token: int) -> str | None:
        """The word that a token writes, in lower case; None for a stop word, a fragment or no word at all.

        A token is a whole word if it begins with a space, or if the vocabulary holds it with a space as well (many chat
        templates are answered without one). Numbers always count.
        """
        if token in self._special:
            return None
        text = str(self._tokenizer.decode([token])).strip()
        if [found.text for found in words_in(text)] != [text.lower()]:
            return None
        word = text.lower()
        if word.isdigit():
            return word
        if word in STOP_WORDS or not self._is_whole(token):
            return None
        return word if len(word) >= _SHORTEST or word in _ANSWERS.split() or not word.isascii() else None

    def _is_whole(self, token: int) -> bool:
        written = self._tokenizer.convert_ids_to_tokens(token)
        return written.startswith(_MARKS) or any(mark + written in self._tokens for mark in _MARKS)
