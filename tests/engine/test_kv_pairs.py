"""Every ordered pair of steerings about one prompt, and as two turns of a conversation: nobody reads a wrong block.

Each pair has a cache salt of its own, so that hundreds of them share batches and an engine, and none another's blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from tests.engine.asking import Answer, Ask
from tests.engine.cache_law import BLOCK, Said, reusable
from tests.engine.engine import Engine
from tests.engine.lawbook import CLOSE, prompt, replacement
from trimtab.vectors import Profile, Registry, save_profile

pytestmark = pytest.mark.engine

# The placeholder's 64 positions and 30 of words: the last position of the prompt is the one but last of its block.
LENGTH = 94
PROMPT = prompt(LENGTH, 7, scene=21)
SHORT, LONG = 4, 36  # tokens of an answer: up to the end of that block, and through the whole of the next
RELOADED = "coarse-middle-all"
MANY = 32

STEERINGS: dict[str, list[tuple[str, float]]] = {
    "none": [],
    "A": [("a", 1.0)],
    "A at another alpha": [("a", 0.5)],
    "before the reload": [(RELOADED, 1.0)],
    "after the reload": [(RELOADED, 1.0)],
    "B": [("b", 1.0)],
    "A and B": [("a", 1.0), ("b", 1.0)],
    "coarse answer": [("coarse-middle-answer", 1.0)],
    "fine answer": [("fine-middle-answer", 1.0)],
    "fine all": [("gate-euclidean-20", 1.0)],
    "prompt": [("coarse-middle-prompt", 1.0)],
    "image": [("coarse-middle-image", 1.0)],
    "text": [("fine-middle-text", 1.0)],
    "after the last block": [("coarse-last-all", 1.0)],
    "sequence gate": [("once", 1.0)],
    "image and answer": [("fine-middle-image", 1.0), ("coarse-middle-answer", 1.0)],
}
PAIRS = [(first, second) for first in STEERINGS for second in STEERINGS]


@dataclass(frozen=True)
class Asked:
    """A request by the name of its steering."""

    name: str
    ask: Ask
    answer: Answer


class Court:
    """Asks in batches, with the profile of either time loaded."""

    def __init__(self, engine: Engine, registry: Registry, folder: Path) -> None:
        self._engine = engine
        self._salts = count()
        self.profiles = dict(registry)
        old = registry[RELOADED]
        self._versions = {"before the reload": old, "after the reload": replacement(old)}
        self._folders = {
            name: save_profile(version, folder / name.replace(" ", "-") / RELOADED)
            for name, version in self._versions.items()
        }

    def parts(self, name: str) -> list[tuple[Profile, float]]:
        return [(self._versions.get(name, self.profiles[one]), alpha) for one, alpha in STEERINGS[name]]

    def salt(self) -> str:
        return f"pair {next(self._salts)}"

    def ask(self, named: Sequence[tuple[str, Ask]]) -> list[Asked]:
        """Who is steered by the version after the reload is asked after it, and all others before."""
        found: dict[int, Asked] = {}
        for version, folder in self._folders.items():
            self._engine.call("load", folder=str(folder))
            after = version == "after the reload"
            group = [n for n, (name, _) in enumerate(named) if (name == "after the reload") == after]
            for some in _batches(group):
                asks = [replace(named[n][1], steering=_steering(named[n][0])) for n in some]
                for n, ask, answer in zip(some, asks, self._engine.ask(asks), strict=True):
                    found[n] = Asked(named[n][0], ask, answer)
        self._engine.call("load", folder=str(self._folders["before the reload"]))
        return [found[n] for n in range(len(named))]

    def said(self, asked: Asked) -> Said:
        answer = asked.answer
        return Said(tuple(answer.prompt), tuple(answer.tokens), asked.ask.scene, 4, self.parts(asked.name))


def _steering(name: str) -> list[dict[str, object]] | None:
    return [{"profile": one, "alpha": alpha} for one, alpha in STEERINGS[name]] or None


def _batches(numbers: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(numbers), MANY):
        yield numbers[start : start + MANY]


@pytest.fixture(scope="module")
def keeper(court: Engine, law: Registry, tmp_path_factory: pytest.TempPathFactory) -> Court:
    return Court(court, law, tmp_path_factory.mktemp("versions"))


def _hold(keeper: Court, firsts: Iterable[Asked], seconds: Iterable[Asked], colds: Iterable[Asked]) -> list[int]:
    """The law for each pair; all that fail are told. Returns how many tokens were reused."""
    wrong, reused = [], []
    for first, second, cold in zip(firsts, seconds, colds, strict=True):
        expected = reusable(keeper.said(first), keeper.said(second))
        off = np.abs(np.array(second.answer.logprobs) - cold.answer.logprobs).max()
        assert cold.answer.cached == first.answer.cached == 0
        if second.answer.tokens != cold.answer.tokens or off > CLOSE:
            wrong.append(f"{first.name} -> {second.name}: answers as no cold one, off by {off:g}")
        if second.answer.cached != expected:
            wrong.append(f"{first.name} -> {second.name}: {second.answer.cached} tokens reused, not {expected}")
        reused.append(expected)
    assert not wrong, "\n".join(wrong)
    return reused


def test_the_same_prompt_under_every_pair_of_steerings(keeper: Court) -> None:
    asks = [replace(PROMPT, salt=keeper.salt()) for _ in PAIRS]
    firsts = keeper.ask(
        [(first, replace(ask, max_tokens=SHORT, full=False)) for (first, _), ask in zip(PAIRS, asks, strict=True)]
    )
    seconds = keeper.ask([(second, replace(ask, max_tokens=3)) for (_, second), ask in zip(PAIRS, asks, strict=True)])
    alone = keeper.ask([(name, replace(PROMPT, salt=keeper.salt(), max_tokens=3)) for name in STEERINGS])
    cold = {asked.name: asked for asked in alone}
    reused = _hold(keeper, firsts, seconds, [cold[second] for _, second in PAIRS])
    assert {0, BLOCK * 2} <= set(reused)


def test_the_next_turn_of_a_conversation_under_every_pair_of_steerings(keeper: Court) -> None:
    asks = [replace(PROMPT, salt=keeper.salt()) for _ in PAIRS]
    firsts = keeper.ask(
        [(first, replace(ask, max_tokens=LONG, full=False)) for (first, _), ask in zip(PAIRS, asks, strict=True)]
    )
    turns = [
        replace(
            asked.ask, ids=(*(asked.ask.ids or ()), *asked.answer.tokens, *range(310, 317)), max_tokens=3, full=True
        )
        for asked in firsts
    ]
    seconds = keeper.ask([(second, turn) for (_, second), turn in zip(PAIRS, turns, strict=True)])
    colds = keeper.ask(
        [(second, replace(turn, salt=keeper.salt())) for (_, second), turn in zip(PAIRS, turns, strict=True)]
    )
    reused = _hold(keeper, firsts, seconds, colds)
    # Some reuse nothing, some the picture, some the prompt and some the blocks that were generated, too.
    assert {0, 2 * BLOCK, 4 * BLOCK} <= set(reused)


def test_two_questions_about_a_picture_share_its_blocks_whoever_steers_their_answers(keeper: Court) -> None:
    other = replace(prompt(LENGTH, 8, scene=21), max_tokens=3)
    named = ["none", "coarse answer", "fine answer", "sequence gate", "after the last block", "prompt", "image", "A"]
    asks = [(replace(PROMPT, salt=salt), replace(other, salt=salt)) for salt in (keeper.salt() for _ in named)]
    firsts = keeper.ask([("coarse answer", first) for first, _ in asks])
    seconds = keeper.ask([(name, second) for name, (_, second) in zip(named, asks, strict=True)])
    colds = keeper.ask([(name, replace(other, salt=keeper.salt())) for name in named])
    assert _hold(keeper, firsts, seconds, colds) == [64] * 5 + [0] * 3


def test_another_picture_shares_nothing(keeper: Court) -> None:
    salt = keeper.salt()
    firsts = keeper.ask([("coarse answer", replace(PROMPT, salt=salt))])
    other = replace(PROMPT, scene=22)
    seconds = keeper.ask([("coarse answer", replace(other, salt=salt))])
    colds = keeper.ask([("coarse answer", replace(other, salt=keeper.salt()))])
    assert _hold(keeper, firsts, seconds, colds) == [0]
