"""The law of the prefix cache, written down once more, and what it says of requests that follow one another.

A block may be reused iff tokens, pictures and all steering that changes KV agree at every position up to its end. Only
full blocks are kept, those of generated tokens too; the last generated token was never computed, and the last position
of a prompt is always computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from trimtab.vectors import Profile

BLOCK = 32
Position = tuple[object, ...]


@dataclass(frozen=True)
class Said:
    """A request and its answer. picture: which one fills the placeholders. parts: profiles and alphas."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    picture: object
    image_token: int
    parts: Sequence[tuple[Profile, float]]

    def positions(self) -> list[Position]:
        """All that decides the KV of each computed position."""
        tokens = (*self.prompt, *self.answer[:-1])
        return [
            (token, self.picture if token == self.image_token else None, self._steering(position))
            for position, token in enumerate(tokens)
        ]

    def _steering(self, position: int) -> frozenset[tuple[str, float]]:
        return frozenset(
            (profile.digest, alpha)
            for profile, alpha in self.parts
            if profile.layers[0] < profile.manifest.base_model.num_layers - 1 and self._steers(profile, position)
        )

    def _steers(self, profile: Profile, position: int) -> bool:
        last = len(self.prompt) - 1
        image = position <= last and self.prompt[position] == self.image_token
        return {
            "answer": position >= last,
            "prompt": position < last,
            "all": True,
            "image": image,
            "text": position <= last and not image,
        }[profile.manifest.positions]


def reusable(before: Said, now: Said) -> int:
    """How many tokens of the prompt of `now` come from the blocks that `before` left in an empty cache."""
    then, wanted = before.positions(), now.positions()
    alike = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(then, wanted, strict=False))))
    return min(alike, len(now.prompt) - 1) // BLOCK * BLOCK
