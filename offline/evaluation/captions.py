"""What data sets of captions have in common: their classes, and the figures of a steering toward neutral words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import SettingError
from ..findings import Measured
from ..statistics import rate
from .benchmark import Answers
from .effect import Same
from .gender import KINDS, Lexicon, converted, intact

__all__ = ["ByGender"]


class ByGender:
    """The part of a data set of captions that tells them apart, by the gendered and the neutral words in them."""

    lexicon: Lexicon

    @property
    def usual(self) -> Mapping[str, str]:
        return {"gendered": "neutral"}

    @property
    def same(self) -> Same:
        return self.lexicon.same

    def kinds(self, captions: Sequence[str]) -> dict[str, Measured]:
        """How many captions are gendered, and how many neutral."""
        found = [self.lexicon.kind(caption) for caption in captions]
        return {f"{kind} captions": rate(found.count(kind), len(found)) for kind in KINDS[:2]}

    def label(self, sample: str, answer: str) -> str:
        return self.lexicon.kind(answer)

    def mapped(self, word: str) -> str:
        kind = word if word in KINDS else self.lexicon.kind(word)
        if kind == "neither" and word != kind:
            raise SettingError(
                f"--map {word}: is no gendered and no neutral word; captions are told apart by these, so map one "
                "to the other, as in man=person, or extend the lists with --gendered and --neutral"
            )
        return kind

    def compare(self, before: Answers, after: Answers) -> dict[str, Measured]:
        became = converted(before, after, self.lexicon)
        first = "gendered captions converted"
        return {first: became.pop(first), **intact(before, after, self.lexicon), **became}
