"""The pool of distinct requests that batches are drawn from."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from examples.tinyworld.ask import ASK, CAPTION_PROMPT
from tests.engine.asking import scene_of
from trimtab.vectors import Registry

LONGEST = 24
_ALPHAS = (-1.5, -1.0, 0.75, 1.0, 1.5)
_PROFILES = (0, 1, 1, 1, 1, 2, 2, 3, 3, 4)  # how many of them a request adds up
_PICTURES = (0, 0, 1, 1, 1, 1, 2)
_PREFIXES = ("", "", "is there a red ball? are there two blue stars? who is there? " * 3, "what place is this? " * 9)
_SCENES = 10


@dataclass(frozen=True)
class Request:
    """One request; two of the same number are the same in every way.

    text: one user turn after the pictures of `scenes`. ids: a raw prompt of tokens instead. steering: profile and
    strength of each part, none for unsteered.
    """

    number: int
    text: str
    scenes: tuple[int, ...]
    steering: tuple[tuple[str, float], ...]
    max_tokens: int
    ids: tuple[int, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Request:
        ids = None if found["ids"] is None else tuple(found["ids"])
        steering = tuple((name, alpha) for name, alpha in found["steering"])
        return cls(**{**found, "ids": ids, "scenes": tuple(found["scenes"]), "steering": steering})


def first_turns(registry: Registry, count: int, seed: int) -> list[Request]:
    """`count` distinct requests: few pictures and beginnings, so that they share what is cached, and many steerings."""
    rng = random.Random(seed)
    found: dict[Request, None] = {}
    while len(found) < count:
        scenes = tuple(rng.randrange(_SCENES) for _ in range(rng.choice(_PICTURES)))
        scene = rng.randrange(_SCENES)
        kind = rng.choice(("yes/no", "number", "other", "caption"))
        question = CAPTION_PROMPT if kind == "caption" else ASK[kind](scene_of(scene), rng).text  # type: ignore[index]
        text = rng.choice(_PREFIXES) + question
        steering = _steering(rng, registry, pictures=bool(scenes))
        found[Request(len(found), text, scenes, steering, _length(rng))] = None
    return list(found)


def second_turns(
    registry: Registry,
    before: Sequence[Request],
    told: Sequence[tuple[Sequence[int], Sequence[int]]],
    count: int,
    seed: int,
) -> list[Request]:
    """Requests whose prompt is an earlier prompt, what was answered under steering, and another prompt.

    Half of them are steered as the first turn was. told: prompt and answer of each of `before`. What was generated,
    and is cached as such, must not be taken for a prompt that was read, nor the other way round.
    """
    rng = random.Random(seed)
    talks = [request for request in before if not request.scenes and request.steering and request.max_tokens > 1]
    found = []
    for number in range(len(before), len(before) + count):
        first, then = rng.choice(talks), rng.choice(talks)
        prompt, answer = told[first.number]
        steering = first.steering if number % 2 else _steering(rng, registry, pictures=False)
        ids = (*prompt, *answer, *told[then.number][0])
        found.append(Request(number, "", (), steering, _length(rng), ids))
    return found


def _length(rng: random.Random) -> int:
    return round(rng.triangular(1, LONGEST, 18))  # short ones are few: one token can hardly show what steered it


def _steering(rng: random.Random, registry: Registry, *, pictures: bool) -> tuple[tuple[str, float], ...]:
    names = [name for name, profile in registry.items() if pictures or profile.manifest.positions != "image"]
    return tuple((name, rng.choice(_ALPHAS)) for name in rng.sample(names, rng.choice(_PROFILES)))
