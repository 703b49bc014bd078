"""Background states: what else a served profile would meet in the same answers.

A rule keeps a few positions of an answer. A profile that is served on answers acts at all of them, from the last of the
prompt to the one that predicts the end token. A sample of these others tells what a gate would do there. A mean over
positions is no position: where a rule keeps a mean, all positions of the answer are others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from ..models.words import Answer, words_in
from .rules import Kept

__all__ = ["drawn", "others"]


def others(answer: Answer, end: int | None, kept: Iterable[Kept]) -> list[Kept]:
    """The positions of an answer that a rule does not keep, in order, each labelled by the word that it predicts.

    The position of a word's second token predicts that word too; a sign, or the end, is no word and has the label "".
    end: the id of the end token; None for an answer that was cut, whose last token nothing follows.
    """
    tokens = answer.tokens if end is None else (*answer.tokens, end)
    words = [""] * len(tokens)
    for word in words_in(answer.text):
        for at in answer.tokens_of(word.start, word.stop):
            words[at] = words[at] or word.text
    taken = {one.positions[0] for one in kept if len(one.positions) == 1}
    return [Kept((at,), words[at], token) for at, token in enumerate(tokens) if at not in taken]


def drawn(found: list[Kept], most: int, sample: str, seed: int = 0) -> list[Kept]:
    """At most `most` of these states, in order, drawn by the seed and the sample's id: the same in every run."""
    if len(found) <= most:
        return found
    name = hashlib.blake2b(sample.encode(), digest_size=8).digest()
    order = np.random.default_rng([seed, int.from_bytes(name)]).permutation(len(found))
    return [found[i] for i in sorted(order[:most])]
