"""Words in a generated text, and the tokens that wrote them.

Words are found by boundary, never by substring ("no" is in "snow"), and mapped to tokens through the characters that
each token wrote, which holds for byte-level BPE and for SentencePiece alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
HALF_A_CHARACTER = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Answer:
    """A generated answer without its end token.

    tokens: the generated ids, n of them. spans: n pairs; token i wrote text[start:stop] or a part of it, nothing where
    the two are equal (the mark of a word's beginning). A character that takes several tokens is in the span of each.
    """

    text: str
    tokens: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def decode(cls, tokens: Sequence[int], decode: Callable[[list[int]], str]) -> Answer:
        """From generated ids. `decode` gives the text of a list of ids, special tokens left out."""
        ids = [int(token) for token in tokens]
        spans: list[tuple[int, int]] = []
        whole = 0
        for count in range(1, len(ids) + 1):
            written = decode(ids[:count])
            start, whole = whole, max(whole, len(written.rstrip(HALF_A_CHARACTER)))
            spans.append((start, whole + written.endswith(HALF_A_CHARACTER)))
        return cls(decode(ids), tuple(ids), tuple(spans))

    def tokens_of(self, start: int, stop: int) -> range:
        """Indices of the tokens that wrote something of text[start:stop]."""
        hit = [i for i, (a, b) in enumerate(self.spans) if a < stop and b > start]
        return range(hit[0], hit[-1] + 1) if hit else range(0)


@dataclass(frozen=True)
class Word:
    """A word (or a phrase) in a text: text[start:stop], in lower case."""

    text: str
    start: int
    stop: int


def words_in(text: str) -> list[Word]:
    """All words of a text, in order, in lower case: letters, digits and what an apostrophe or hyphen joins."""
    return [Word(match.group().lower(), *match.span()) for match in _WORD.finditer(text)]


def find_phrases(text: str, phrases: Iterable[str]) -> list[Word]:
    """Where any of the phrases (one or more words, lower case) occurs in a text, by whole words, in order.

    Where two begin at the same word the longer one counts.
    """
    words = words_in(text)
    wanted = sorted({tuple(phrase.split()) for phrase in phrases}, key=lambda parts: (-len(parts), parts))
    found: list[Word] = []
    at = 0
    while at < len(words):
        for parts in wanted:
            if tuple(word.text for word in words[at : at + len(parts)]) == parts:
                last = words[at + len(parts) - 1]
                found.append(Word(" ".join(parts), words[at].start, last.stop))
                at += len(parts)
                break
        else:
            at += 1
    return found


def first_discriminating(tokens: Sequence[int], rivals: Iterable[Sequence[int]]) -> int:
    """Index of the first of a word's tokens at which it differs from every rival's spelling.

    A word that is the beginning of a rival ("man", "manhole") never differs; its last token is taken.
    """
    shared = 0
    for rival in rivals:
        common = 0
        for ours, theirs in zip(tokens, rival, strict=False):
            if ours != theirs:
                break
            common += 1
        shared = max(shared, common)
    return min(shared, len(tokens) - 1)
