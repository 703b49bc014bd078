"""The rules that choose which states of the residual stream are kept (docs/method.md §1).

The state at position t predicts token t + 1. Positions are counted from the last prompt position: position 0 is the
last prompt token and predicts the answer's token 0; position p > 0 is the answer's token p - 1 and predicts token p.

    last-prompt        position 0, labelled by the answer's first word; always a state, even where no word follows
    predicts:man,woman for every occurrence of one of the words: the position that predicts it
    predicts:*         the same for every word of the answer
    mean-generated     the mean over the answer's own positions, the end token left out

An original and a target set must come from one rule: otherwise their difference holds a position component as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ..errors import SettingError
from ..models.words import HALF_A_CHARACTER, Answer, find_phrases, first_discriminating, words_in

Spell = Callable[[str], Iterable[Sequence[int]]]
"""The token sequences that may write a word (with and without a space before it)."""

NO_TOKEN = -1


@dataclass(frozen=True)
class Kept:
    """A state to keep: the mean of the stream over `positions`.

    label: the word that it predicts, "" if it predicts none. token: the id that it predicts, or NO_TOKEN.
    """

    positions: tuple[int, ...]
    label: str
    token: int


class Rule(Protocol):
    """Which states of a generated answer are kept. `str(rule)` is the form that `parse` reads."""

    @property
    def usual_length(self) -> int:
        """The largest number of tokens that is generated unless another one is asked for."""

    def states(self, answer: Answer, spell: Spell) -> list[Kept]:
        """The states to keep, in order of position; none if the answer has nothing that the rule asks for."""

    def satisfied(self, text: str) -> bool:
        """Whether what has been generated so far is enough, so that generation may stop before the end token."""


@dataclass(frozen=True)
class LastPrompt:
    """The last prompt position, labelled by the first word of the answer (all of it, however many tokens it takes).

    Two answers may share their first token ("1" and "3" in LLaMA's vocabulary): this position then predicts the same
    for both. `coarse_profile` and `fine_profile` refuse such states; `Predicts(("1", "3"))` takes the token that
    tells them apart.
    """

    usual_length: ClassVar[int] = 16

    def __str__(self) -> str:
        return "last-prompt"

    def states(self, answer: Answer, spell: Spell) -> list[Kept]:
        words = words_in(answer.text)
        token = answer.tokens[0] if answer.tokens else NO_TOKEN
        return [Kept((0,), words[0].text if words else "", token)]

    def satisfied(self, text: str) -> bool:
        text = text.rstrip(HALF_A_CHARACTER)
        words = words_in(text)
        # One more character has to follow that is no part of the word. It may still turn out to join ("don" + "'" +
        # "t"), so a joining character waits for the next one.
        return bool(words) and words[0].stop < len(text) and text[words[0].stop :] not in ("'", "’", "-")


@dataclass(frozen=True)
class Predicts:
    """The positions that predict a word: of `words` (lower case; phrases of several words too), or all if None.

    A word of several tokens is taken at its first token; between given words that share their first tokens, at the
    first token that tells them apart.
    """

    words: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.words is None:
            return
        clean = tuple(dict.fromkeys(" ".join(found.text for found in words_in(word)) for word in self.words))
        if not clean or "" in clean:
            raise SettingError("the rule 'predicts' needs words made of letters or digits, such as predicts:man,woman")
        object.__setattr__(self, "words", clean)

    usual_length: ClassVar[int] = 64

    def __str__(self) -> str:
        return "predicts:" + ("*" if self.words is None else ",".join(self.words))

    def states(self, answer: Answer, spell: Spell) -> list[Kept]:
        found = words_in(answer.text) if self.words is None else find_phrases(answer.text, self.words)
        kept = []
        for word in found:
            span = answer.tokens_of(word.start, word.stop)
            if not span:
                continue
            tokens = [answer.tokens[i] for i in span]
            rivals = (spelled for other in self.words or () if other != word.text for spelled in spell(other))
            at = span[first_discriminating(tokens, rivals)]
            kept.append(Kept((at,), word.text, answer.tokens[at]))
        return kept

    def satisfied(self, text: str) -> bool:
        return False


@dataclass(frozen=True)
class MeanGenerated:
    """The mean over the positions of the generated tokens, the end token left out. No label."""

    usual_length: ClassVar[int] = 64

    def __str__(self) -> str:
        return "mean-generated"

    def states(self, answer: Answer, spell: Spell) -> list[Kept]:
        positions = tuple(range(1, len(answer.tokens) + 1))
        return [Kept(positions, "", NO_TOKEN)] if positions else []

    def satisfied(self, text: str) -> bool:
        return False


def parse(text: str) -> Rule:
    """The rule that a text names; `str` of a rule gives the text back.

    Raises:
        SettingError: none of the forms in this module's docstring.
    """
    name, colon, words = text.strip().partition(":")
    if not colon and name == "last-prompt":
        return LastPrompt()
    if not colon and name == "mean-generated":
        return MeanGenerated()
    if name == "predicts" and words:
        return Predicts(None if words.strip() == "*" else tuple(words.split(",")))
    raise SettingError(
        f"unknown rule {text!r}; use last-prompt, predicts:<word>,<word>, predicts:* (every word) or mean-generated"
    )
