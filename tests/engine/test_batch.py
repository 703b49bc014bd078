"""Whoever shares a batch changes nothing: neighbours, their ends, their errors and their arrival."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.engine.asking import Answer, Ask, Refusal, caption, questions, yes_no
from tests.engine.engine import Engine, RefusedError
from tests.engine.reference import Reference
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

LONG = "is there a red ball? are there two blue stars? who is there? " * 4


def _mixed() -> list[Ask]:
    """Eight requests that differ in all that a request can differ in."""
    (number,), (other,) = questions("number", 1), questions("other", 1)
    return [
        caption(1, max_tokens=14, steering={"profile": "coarse-last-answer", "alpha": 2}),
        replace(number, max_tokens=3, steering={"profile": "fine-middle-all", "alpha": 2}),
        caption(2, max_tokens=9),
        Ask(
            "who is there?", max_tokens=7, ignore_eos=True, steering={"profile": "coarse-middle-answer", "alpha": -1.5}
        ),
        replace(other, max_tokens=1, steering={"profile": "fine-last-answer", "alpha": 1.0}),
        Ask(LONG, scene=4, max_tokens=11, ignore_eos=True, steering={"profile": "coarse-middle-all", "alpha": 1.75}),
        replace(yes_no("yes", 1)[0], max_tokens=2, steering="none"),
        caption(1, max_tokens=12, ignore_eos=True, steering={"profile": "coarse-last-answer", "alpha": -2}),
    ]


def _tokens(answers: list[Answer]) -> list[list[int]]:
    return [answer.tokens for answer in answers]


@pytest.fixture(scope="module")
def alone(engine: Engine) -> list[list[int]]:
    """What each of the eight is told when it has the engine to itself."""
    return _tokens(engine.ask_alone(_mixed()))


def test_steering_shows_in_the_tokens_of_the_batch(engine: Engine, alone: list[list[int]]) -> None:
    unsteered = _tokens(engine.ask_alone([ask.steered(None) for ask in _mixed()]))
    different = [number for number in range(8) if alone[number] != unsteered[number]]
    assert set(different) <= {0, 1, 3, 4, 5, 7}
    assert len(different) >= 4


@pytest.mark.smoke
def test_a_request_in_a_mixed_batch_is_told_what_it_is_told_alone(engine: Engine, alone: list[list[int]]) -> None:
    engine.forget()
    assert _tokens(engine.ask(_mixed())) == alone


def test_the_order_of_a_batch_changes_nothing(engine: Engine, alone: list[list[int]]) -> None:
    engine.forget()
    assert _tokens(engine.ask(_mixed()[::-1]))[::-1] == alone


def test_requests_that_arrive_while_others_run_change_nothing(engine: Engine, alone: list[list[int]]) -> None:
    # Every one arrives in another step: prompts beside decodes, and rows that move up as batchmates finish.
    engine.forget()
    assert _tokens(engine.ask([replace(ask, late=2 * number) for number, ask in enumerate(_mixed())])) == alone


def test_a_request_stays_steered_after_its_batchmate_has_finished(engine: Engine) -> None:
    long = caption(1, max_tokens=12, ignore_eos=True, steering="fine-last-answer")
    short = [replace(ask, max_tokens=number + 1) for number, ask in enumerate(questions("other", 4))]
    (expected,) = engine.ask_alone([long])
    engine.forget()
    assert engine.ask([*short, long])[-1].tokens == expected.tokens


def test_the_prompt_is_steered_in_its_first_step(engine: Engine, reference: Reference, registry: Registry) -> None:
    # Peers fill their rows from the step before: an idle engine then serves the prompt, and its first token, unsteered.
    ask = caption(1, max_tokens=1, full=True)
    engine.ask_alone([replace(ask, scene=2)])
    (steered,) = engine.ask_alone([ask.steered("coarse-middle-all")])
    expected = reference.logprobs(ask, steered.tokens, registry["coarse-middle-all"], 1.0)
    np.testing.assert_allclose(steered.logprobs, expected, rtol=0, atol=1e-4)


def test_a_bad_request_leaves_its_batchmates_steered_and_the_engine_alive(
    engine: Engine, alone: list[list[int]]
) -> None:
    engine.forget()
    bad = [
        replace(caption(5, max_tokens=5), steering={"profile": "coarse-last-answer", "alpha": 99}, late=1),
        replace(caption(6, max_tokens=5), steering="no-such-profile", late=3),
    ]
    replies = engine.try_all([*_mixed(), *bad])
    assert [type(reply) for reply in replies[8:]] == [Refusal, Refusal]
    assert [reply.tokens for reply in replies[:8] if isinstance(reply, Answer)] == alone


def test_a_bad_request_in_one_chat_call_leaves_nothing_behind(engine: Engine, alone: list[list[int]]) -> None:
    engine.forget()
    with pytest.raises(RefusedError, match="no-such-profile"):
        engine.chat([*_mixed()[:4], caption(6, steering="no-such-profile")])
    engine.forget()
    assert _tokens(engine.chat(_mixed())) == alone


def test_every_one_of_n_answers_is_steered(engine: Engine) -> None:
    ask = replace(yes_no("yes", 1)[0], n=2, max_tokens=4, ignore_eos=True)
    engine.forget()
    unsteered = engine.ask([ask])[0].all_tokens
    steered = engine.ask([ask.steered({"profile": "coarse-last-all", "alpha": 2})])[0].all_tokens
    assert len(steered) == len(unsteered) == 2
    assert all(here != there for here, there in zip(steered, unsteered, strict=True))


def test_one_sampling_params_for_many_prompts_steers_each_of_them(engine: Engine) -> None:
    # A resolved form that is left in the caller's dictionary would be refused as reserved, or serve the next unsteered.
    asks = [caption(seed, steering={"profile": "coarse-last-answer", "alpha": 2}) for seed in (1, 2, 3)]
    assert _tokens(engine.chat(asks)) == _tokens(engine.ask_alone(asks))
