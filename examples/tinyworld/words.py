"""Words that carry gender, what replaces them, and a comparison of captions that is blind to both."""

import re

from trimtab.offline.evaluation.gender import Lexicon

GENDERED = frozenset({"man", "woman", "boy", "girl", "his", "her"})
NEUTRAL = {
    "man": "person",
    "woman": "person",
    "boy": "child",
    "girl": "child",
    "his": "their",
    "her": "their",
}
LEXICON = Lexicon(gendered=tuple(sorted(GENDERED)), neutral=tuple(sorted(set(NEUTRAL.values()))))
"""How captions are judged: by the same words, with the same judge as those of other models."""
BLANK = "_"

_WORD = re.compile(r"[a-z]+")
_BLANKED = GENDERED | frozenset(NEUTRAL.values())


def words(text: str) -> list[str]:
    """The text's words in lower case, split at anything that is not a letter."""
    return _WORD.findall(text.lower())


def gendered(text: str) -> list[str]:
    """The gendered words of the text, in order; whole words only."""
    return [word for word in words(text) if word in GENDERED]


def neutralised(text: str) -> str:
    """The text with every gendered word replaced by its neutral one."""
    return _WORD.sub(lambda match: NEUTRAL.get(match[0], match[0]), text)


def other_facts(caption: str) -> str:
    """The caption with person words and pronouns blanked: equal for captions that differ in nothing else."""
    return _WORD.sub(lambda match: BLANK if match[0] in _BLANKED else match[0], caption.lower())
