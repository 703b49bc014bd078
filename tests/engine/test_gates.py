"""Gates: how many concepts, how near, and whether to decide at every position or once for the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.engine.asking import Answer, Ask, Refusal, caption, questions
from tests.engine.conftest import SEATS
from tests.engine.engine import Engine
from tests.engine.lawbook import CLOSE, METRICS, PICTURE, SIZES, TEXT, prompt
from tests.engine.reference import Float32, Reference
from trimtab.vectors import Gate, Profile, Registry

pytestmark = pytest.mark.engine

# Some end inside a block and some before its last positions, so that the blocks that answers fill hold their ends too.
ASKS = [
    PICTURE,
    TEXT,
    *(replace(ask, full=True, ignore_eos=True, max_tokens=4) for ask in (caption(4), *questions("number", 2))),
    prompt(62, 1),
    prompt(94, 2, scene=9),
    prompt(31, 3),
]
ONCE = ["once", "once-euclidean", "once-cosine", "once-last", "own-once-euclidean", ["once", "own-once-cosine"]]
LIMITED_ONCE = ("once-euclidean", "once-cosine", "own-once-euclidean")
TOKENS = 12  # enough to fill the block of the last prompt position, which a preempted request then finds in the cache
LONG = [replace(ask, max_tokens=TOKENS) for ask in ASKS]
CHUNKS = [1, 3, 7, 8, 32, 33]


def _names(steering: Any) -> list[str]:
    return [steering] if isinstance(steering, str) else list(steering)


def _expected(reference: Reference, law: Registry, ask: Ask, tokens: Sequence[int]) -> Float32:
    found = reference.summed(ask, tokens, [(law[name], 1.0) for name in _names(ask.steering)])
    # Nearer than this, float32 could choose another row than float64.
    assert reference.margin > (1e-5 if "cosine" in str(ask.steering) else 2e-4)
    return found


def _hold(reference: Reference, law: Registry, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
    for ask, answer in zip(asks, answers, strict=True):
        expected = _expected(reference, law, ask, answer.tokens)
        np.testing.assert_allclose(answer.logprobs, expected, rtol=0, atol=CLOSE, err_msg=str(ask.steering))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("gate", [*(f"gate-{{}}-{k}" for k in SIZES), "own-{}"])
def test_a_limited_gate_lets_exactly_the_near_positions_through(
    court: Engine, reference: Reference, law: Registry, metric: str, gate: str
) -> None:
    asks = [ask.steered(gate.format(metric)) for ask in ASKS]
    court.forget()
    answers = court.ask(asks)
    _hold(reference, law, asks, answers)
    inside: list[bool] = []
    for ask, answer in zip(asks[:4], answers, strict=False):
        _expected(reference, law, ask, answer.tokens)
        inside += reference.inside
    assert 0.2 < np.mean(inside) < 0.8


@pytest.fixture(scope="module")
def asks() -> list[Ask]:
    return [ask.steered(name) for name in ONCE for ask in LONG]


@pytest.fixture(scope="module")
def whole(court: Engine, asks: list[Ask]) -> list[Answer]:
    court.forget()
    return court.ask(asks)


def _same(answers: Sequence[Answer], whole: Sequence[Answer]) -> None:
    for answer, same in zip(answers, whole, strict=True):
        assert answer.tokens == same.tokens
        np.testing.assert_allclose(answer.logprobs, same.logprobs, rtol=0, atol=CLOSE)


def test_a_sequence_gate_decides_at_the_last_prompt_position_and_keeps_to_it(
    reference: Reference, law: Registry, asks: list[Ask], whole: list[Answer]
) -> None:
    _hold(reference, law, asks, whole)


def test_its_limit_lets_some_answers_through_and_some_not(
    reference: Reference, law: Registry, asks: list[Ask], whole: list[Answer]
) -> None:
    inside: list[bool] = []
    for ask, answer in zip(asks, whole, strict=True):
        if ask.steering in LIMITED_ONCE:
            _expected(reference, law, ask, answer.tokens)
            inside += reference.inside
    assert 0.1 < np.mean(inside) < 0.9


def test_a_gate_that_decided_at_each_position_would_answer_otherwise(
    reference: Reference, law: Registry, asks: list[Ask], whole: list[Answer]
) -> None:
    # Else the laws of lasting decisions would hold for gates that do not keep them.
    found = []
    for ask, answer in zip(asks, whole, strict=True):
        if ask.steering == "once":
            each = reference.logprobs(ask, answer.tokens, _at_each_position(law["once"]), 1.0)
            found.append(np.abs(each - answer.logprobs).max())
    assert max(found) > 1e3 * CLOSE


def _at_each_position(profile: Profile) -> Profile:
    rows = {layer: (tensor.named["centroids"], tensor.named["vectors"]) for layer, tensor in profile.tensors.items()}
    return Profile.fine(
        profile.name, rows, model=profile.manifest.base_model, positions=profile.manifest.positions, gate=Gate()
    )


@pytest.mark.parametrize("size", CHUNKS)
def test_a_decision_is_the_same_when_the_prompt_comes_in_pieces(
    court: Engine, asks: list[Ask], whole: list[Answer], size: int
) -> None:
    court.forget()
    court.call("chunk", size=size)
    try:
        _same(court.ask(asks), whole)
    finally:
        court.call("chunk", size=0)


@pytest.mark.parametrize("steps", [[5], [5, 8], range(4, 60, 2)])
def test_a_preempted_answer_keeps_its_first_decision(
    court: Engine, asks: list[Ask], whole: list[Answer], steps: Sequence[int]
) -> None:
    # What is computed again begins after the last prompt position where that lies in a full, cached block. There are
    # more requests than seats: those who waited decide anew, in the places of those who were sent to the queue's end.
    assert len(asks) > SEATS
    court.forget()
    before = court.call("preemptions")
    _same(court.ask(asks, preempt=steps), whole)
    assert court.call("preemptions") > before


def test_arrivals_ends_and_aborts_of_others_change_no_decision(
    court: Engine, asks: list[Ask], whole: list[Answer]
) -> None:
    court.forget()
    mixed = [
        replace(ask, late=number % 7, max_tokens=1 + (5 * number) % TOKENS, abort=number % 7 + 3)
        if number % 3 == 0
        else replace(ask, late=number % 5)
        for number, ask in enumerate(asks)
    ]
    replies = court.try_all([*mixed, *asks])
    kept = [number for number in range(len(asks)) if number % 3]
    assert any(isinstance(reply, Refusal) for reply in replies)
    found = [reply for number, reply in enumerate(replies) if number in kept or number >= len(asks)]
    assert all(isinstance(reply, Answer) for reply in found)
    _same([reply for reply in found if isinstance(reply, Answer)], [*(whole[number] for number in kept), *whole])


def test_two_sequence_gates_keep_a_decision_each(court: Engine, reference: Reference, law: Registry) -> None:
    asks = [ask.steered(["once-euclidean", "once-last", "once-cosine", "once"]) for ask in LONG]
    court.forget()
    answers = court.ask(asks, preempt=[3, 8])
    _hold(reference, law, asks, answers)
