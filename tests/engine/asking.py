"""What the tests ask and what they are told: plain values that cross a process border as JSON."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from examples.tinyworld.ask import ASK, CAPTION_PROMPT, Type
from examples.tinyworld.scene import Scene, sample_split


@dataclass(frozen=True)
class Ask:
    """A request.

    text: one user turn. scene: seed of the picture that goes with it, None for none. ids: a raw prompt of tokens
    instead. steering: the value under `extra_args["steering"]`, None for no such key. extra: other `extra_args`.
    full: give the whole distribution of every step, and no text. late: the step of the engine at which it arrives.
    sampling: further arguments of `SamplingParams`, which win over those made of the fields above. lora: folder of an
    adapter. priority: lower goes first, where the engine schedules by it. abort: the step at which it is taken back,
    leaves: the step during which it is, so that the engine hears of it before it reads what came of that step.
    scenes: seeds of further pictures; with `ids`, each picture has one placeholder there. salt: keeps its cached blocks
    apart from those of other salts; with `ids` only. url: a picture as a data URL, decoded by vLLM as a server's is.
    """

    text: str = ""
    scene: int | None = None
    ids: tuple[int, ...] | None = None
    steering: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = 6
    ignore_eos: bool = False
    full: bool = False
    n: int = 1
    late: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    lora: str | None = None
    priority: int = 0
    abort: int | None = None
    leaves: int | None = None
    scenes: tuple[int, ...] = ()
    salt: str | None = None
    url: str | None = None

    def steered(self, steering: Any) -> Ask:
        return replace(self, steering=steering)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Ask:
        ids = None if found["ids"] is None else tuple(found["ids"])
        return cls(**{**found, "ids": ids, "scenes": tuple(found["scenes"])})

    @property
    def pictures(self) -> tuple[int, ...]:
        """Seeds of all of its pictures, in their order."""
        return (*(() if self.scene is None else (self.scene,)), *self.scenes)

    @property
    def extra_args(self) -> dict[str, Any]:
        return {**self.extra, **({} if self.steering is None else {"steering": self.steering})}


@dataclass(frozen=True)
class Answer:
    """An answer.

    prompt: its tokens, image placeholders included. cached: how many of them came from the prefix cache. all_tokens: of
    each of the n answers. logprobs: of each step of the first answer, by token id; None unless asked for. error: what
    it ended with instead of an answer.
    """

    prompt: list[int]
    cached: int
    text: str
    all_tokens: list[list[int]]
    logprobs: list[list[float]]
    prompt_logprobs: list[list[float]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def tokens(self) -> list[int]:
        return self.all_tokens[0]


@dataclass(frozen=True)
class Refusal:
    """An exception in the engine's process. kind: the name of its class. param: the field at fault, if it names one."""

    kind: str
    message: str
    param: str | None = None


def scene_of(seed: int) -> Scene:
    """A scene of the dev split."""
    return sample_split(random.Random(seed), "dev")


def questions(kind: Type, count: int, **settings: Any) -> list[Ask]:
    """`count` different questions of a kind, each about a scene of its own."""
    return list(_take(_questions(kind, settings), count))


def yes_no(answer: str, count: int, **settings: Any) -> list[Ask]:
    """`count` yes/no questions whose right answer is `answer`."""
    found = (
        Ask(question.text, seed, **settings)
        for seed in range(10_000)
        if (question := ASK["yes/no"](scene_of(seed), random.Random(seed))).answer == answer
    )
    return list(_take(found, count))


def caption(seed: int, **settings: Any) -> Ask:
    return Ask(CAPTION_PROMPT, seed, **settings)


def _questions(kind: Type, settings: Mapping[str, Any]) -> Iterator[Ask]:
    for seed in range(10_000):
        yield Ask(ASK[kind](scene_of(seed), random.Random(seed)).text, seed, **settings)


def _take(asks: Iterator[Ask], count: int) -> Iterator[Ask]:
    for _ in range(count):
        yield next(asks)
