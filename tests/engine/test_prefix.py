"""Prefix caching: whoever reads a cached block gets what its own steering would have computed.

Blocks are 32 positions. A picture takes 64 placeholders, so a question about one has its last position in block 2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.engine.asking import Answer, Ask, caption
from tests.engine.engine import Engine

pytestmark = pytest.mark.engine

BLOCK = 32
ASK = caption(7, max_tokens=4, full=True, ignore_eos=True)


@pytest.fixture(autouse=True)
def _cold(engine: Engine) -> None:
    engine.forget()


def _cached(engine: Engine, *steerings: Any) -> list[int]:
    """Cached tokens of the same question, asked with one steering after the other."""
    return [engine.ask([ASK.steered(steering)])[0].cached for steering in steerings]


def _same(warm: Answer, cold: Answer) -> None:
    assert warm.tokens == cold.tokens
    np.testing.assert_allclose(warm.logprobs, cold.logprobs, rtol=0, atol=1e-4)


def test_the_prompt_is_long_enough_for_these_laws(engine: Engine) -> None:
    assert 2 * BLOCK < len(engine.ask([ASK])[0].prompt) <= 3 * BLOCK
    assert _cached(engine, None) == [2 * BLOCK]


@pytest.mark.smoke
@pytest.mark.parametrize("kind", ["coarse", "fine"])
def test_a_profile_that_steers_all_of_a_middle_layer_shares_nothing_with_unsteered_requests(
    engine: Engine, kind: str
) -> None:
    name = f"{kind}-middle-all"
    assert _cached(engine, None, name, None) == [0, 0, 2 * BLOCK]
    engine.forget()
    assert _cached(engine, name, None, "none") == [0, 0, 2 * BLOCK]


def test_the_same_profile_and_alpha_share_and_another_alpha_does_not(engine: Engine) -> None:
    half = {"profile": "coarse-middle-all", "alpha": 0.5}
    assert _cached(engine, half, half, "coarse-middle-all", half) == [0, 2 * BLOCK, 0, 2 * BLOCK]
    assert _cached(engine, "fine-middle-all", "coarse-middle-all") == [0, 2 * BLOCK]


@pytest.mark.smoke
def test_answer_positions_on_a_middle_layer_share_the_blocks_before_the_answer(engine: Engine) -> None:
    shared = 2 * BLOCK
    assert _cached(engine, None, "coarse-middle-answer", "fine-middle-answer", None) == [0, shared, shared, shared]
    assert _cached(engine, "coarse-middle-all") == [0]


@pytest.mark.parametrize("name", ["coarse-last-all", "fine-last-all", "coarse-last-answer"])
def test_a_last_layer_profile_shares_its_whole_prefix_with_everybody(engine: Engine, name: str) -> None:
    assert _cached(engine, name, None, {"profile": name, "alpha": -1}, "fine-last-answer") == [0, *[2 * BLOCK] * 3]


@pytest.mark.parametrize(
    "name",
    [None, "coarse-middle-all", "fine-middle-all", "coarse-middle-answer", "fine-middle-answer", "fine-last-all"],
)
def test_a_warm_engine_answers_as_a_cold_one(engine: Engine, name: str | None) -> None:
    (cold,) = engine.ask([ASK.steered(name)])
    assert cold.cached == 0
    engine.forget()
    # Warmed by everybody else, in every way that could leave wrong blocks behind.
    everybody = ("coarse-middle-all", "fine-middle-all", "coarse-middle-answer", "coarse-last-all", None)
    engine.ask([replace(ASK.steered(other), max_tokens=26, full=False) for other in everybody])
    (warm,) = engine.ask([ASK.steered(name)])
    assert warm.cached > 0
    _same(warm, cold)


def _turn(first: Answer, ask: Ask) -> Ask:
    """The next turn of a conversation: all that was said, and a little more."""
    return replace(
        ask, text="", scene=None, ids=(*first.prompt, *first.tokens, *first.prompt[:7]), max_tokens=3, full=True
    )


TEXT = Ask("is there a red ball? are there two blue stars? " * 8, max_tokens=70, ignore_eos=True)


@pytest.mark.parametrize("last", [2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 9])
@pytest.mark.parametrize("name", ["coarse-middle-answer", "fine-middle-answer"])
def test_generated_steered_tokens_are_not_taken_for_prompt_tokens_of_the_next_turn(
    engine: Engine, name: str, last: int
) -> None:
    # The last position of the prompt, the first that is steered, ends a block, begins one or stands inside.
    prompt = replace(TEXT, text="", ids=tuple(engine.ask([replace(TEXT, max_tokens=1)])[0].prompt[: last + 1]))
    before = last // BLOCK * BLOCK
    for steering in (None, name, {"profile": name, "alpha": 0.5}):
        engine.forget()
        (first,) = engine.ask([prompt.steered(name)])
        assert len(first.prompt) == last + 1
        assert len(first.prompt) + len(first.tokens) > before + 2 * BLOCK  # there are full blocks of generated tokens
        following = _turn(first, TEXT).steered(steering)
        (warm,) = engine.ask([following])
        assert warm.cached == before
        engine.forget()
        (cold,) = engine.ask([following])
        assert cold.cached == 0
        _same(warm, cold)


def test_the_next_turn_reuses_what_a_last_layer_profile_generated(engine: Engine) -> None:
    (first,) = engine.ask([TEXT.steered("coarse-last-answer")])
    (warm,) = engine.ask([_turn(first, TEXT)])
    # The last generated token was never computed.
    assert warm.cached == (len(first.prompt) + len(first.tokens) - 1) // BLOCK * BLOCK
    engine.forget()
    (cold,) = engine.ask([_turn(first, TEXT)])
    _same(warm, cold)


def test_the_next_turn_of_a_profile_that_steers_everything_reuses_everything(engine: Engine) -> None:
    (first,) = engine.ask([TEXT.steered("coarse-middle-all")])
    (warm,) = engine.ask([_turn(first, TEXT).steered("coarse-middle-all")])
    assert warm.cached == (len(first.prompt) + len(first.tokens) - 1) // BLOCK * BLOCK
    engine.forget()
    (cold,) = engine.ask([_turn(first, TEXT).steered("coarse-middle-all")])
    _same(warm, cold)
