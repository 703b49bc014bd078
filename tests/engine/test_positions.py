"""Each of the five positions steers exactly its own, however the prompt is read: at once, in pieces, again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.engine.asking import Answer, Ask, Refusal
from tests.engine.engine import Engine
from tests.engine.lawbook import CLOSE, PICTURE, POSITIONS, TEXT, two_pictures
from tests.engine.reference import Float32, Reference
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

MIDDLE = [f"{kind}-middle-{at}" for kind in ("coarse", "fine") for at in POSITIONS]
LAST = [f"{kind}-last-{at}" for kind in ("coarse", "fine") for at in POSITIONS]
ASKS = [
    replace(ask, steering=name)
    for name in [*MIDDLE, "coarse-last-answer", "fine-last-all"]
    for ask in (PICTURE, TEXT)
    if ask is PICTURE or "image" not in name
]
CHUNKS = [1, 2, 3, 4, 5, 6, 7, 8, 16, 33, 64]


@pytest.fixture(scope="module")
def whole(court: Engine) -> list[Answer]:
    """The answers of one batch whose prompts are read at once."""
    court.forget()
    return court.ask(ASKS)


@pytest.fixture(scope="module")
def expected(whole: list[Answer], reference: Reference, law: Registry) -> list[Float32]:
    """What the reference makes of the same tokens."""
    return [
        reference.logprobs(ask, answer.tokens, law[ask.steering], 1.0) for ask, answer in zip(ASKS, whole, strict=True)
    ]


def _hold(answers: list[Answer], whole: list[Answer], expected: list[Float32]) -> None:
    for ask, answer, same, logprobs in zip(ASKS, answers, whole, expected, strict=True):
        assert answer.tokens == same.tokens, ask.steering
        np.testing.assert_allclose(answer.logprobs, logprobs, rtol=0, atol=CLOSE, err_msg=str(ask.steering))


def test_exactly_the_named_positions_are_steered(whole: list[Answer], expected: list[Float32]) -> None:
    _hold(whole, whole, expected)


def test_the_five_positions_are_five_different_answers(
    reference: Reference, law: Registry, whole: list[Answer]
) -> None:
    # Otherwise the law above could not tell one from the other.
    for kind in ("coarse", "fine"):
        found = [reference.logprobs(PICTURE, whole[0].tokens, law[f"{kind}-middle-{at}"], 1.0) for at in POSITIONS]
        found.append(reference.logprobs(PICTURE, whole[0].tokens))
        for number, one in enumerate(found):
            for other in found[:number]:
                assert np.abs(one - other).max(axis=1).min() > 100 * CLOSE


@pytest.mark.parametrize("size", CHUNKS)
def test_a_prompt_in_pieces_of_any_size_is_steered_as_a_whole_one(
    court: Engine, whole: list[Answer], expected: list[Float32], size: int
) -> None:
    court.forget()
    court.call("chunk", size=size)
    try:
        answers = court.ask([replace(ask, late=number % 3) for number, ask in enumerate(ASKS)])
    finally:
        court.call("chunk", size=0)
    _hold(answers, whole, expected)


@pytest.mark.parametrize(("size", "every"), [(0, 1), (16, 3)])
def test_preemption_changes_nothing(
    court: Engine, whole: list[Answer], expected: list[Float32], size: int, every: int
) -> None:
    court.forget()
    court.call("chunk", size=size)
    before = court.call("preemptions")
    try:
        answers = court.ask(ASKS, preempt=range(1, 60, every))
    finally:
        court.call("chunk", size=0)
    assert court.call("preemptions") >= before + 2 * len(ASKS)
    _hold(answers, whole, expected)


def test_a_prompt_from_the_prefix_cache_changes_nothing(
    court: Engine, whole: list[Answer], expected: list[Float32]
) -> None:
    court.forget()
    court.ask(ASKS)
    again = court.ask(ASKS)
    assert all(answer.cached == (len(answer.prompt) - 1) // 32 * 32 > 0 for answer in again)
    _hold(again, whole, expected)


@pytest.mark.parametrize("size", [0, 5])
def test_two_pictures_are_both_image_and_the_words_between_them_text(
    court: Engine, reference: Reference, law: Registry, size: int
) -> None:
    asks = [ask.steered(f"coarse-middle-{at}") for ask in two_pictures() for at in ("image", "text", "prompt")]
    court.forget()
    court.call("chunk", size=size)
    try:
        answers = court.ask(asks)
    finally:
        court.call("chunk", size=0)
    for ask, answer in zip(asks, answers, strict=True):
        assert answer.prompt == reference.prompt(ask)
        assert sum(token == reference.image_token for token in answer.prompt) == 128
        logprobs = reference.logprobs(ask, answer.tokens, law[ask.steering], 1.0)
        np.testing.assert_allclose(answer.logprobs, logprobs, rtol=0, atol=CLOSE, err_msg=str(ask.steering))


@pytest.mark.parametrize("at", ["prompt", "image"])
@pytest.mark.parametrize("kind", ["coarse", "fine"])
def test_prompt_positions_after_the_last_block_change_no_bit(court: Engine, kind: str, at: str) -> None:
    plain, steered = court.ask_alone([PICTURE, PICTURE.steered(f"{kind}-last-{at}")])
    assert (steered.tokens, steered.logprobs) == (plain.tokens, plain.logprobs)


@pytest.mark.parametrize("name", ["coarse-last-text", "fine-last-text"])
def test_text_after_the_last_block_steers_the_first_token_and_no_other(
    court: Engine, reference: Reference, law: Registry, name: str
) -> None:
    # The last position of a prompt is text, and predicts the first token of the answer.
    (steered,) = court.ask_alone([PICTURE.steered(name)])
    expected = reference.logprobs(PICTURE, steered.tokens, law[name], 1.0)
    unsteered = reference.logprobs(PICTURE, steered.tokens)
    np.testing.assert_allclose(steered.logprobs, expected, rtol=0, atol=CLOSE)
    np.testing.assert_allclose(steered.logprobs[1:], unsteered[1:], rtol=0, atol=CLOSE)
    assert np.abs(np.array(steered.logprobs[0]) - unsteered[0]).max() > 100 * CLOSE


def test_image_without_a_picture_is_refused_and_its_batchmates_live(court: Engine, whole: list[Answer]) -> None:
    court.forget()
    bad = [
        replace(TEXT, steering=name, late=late) for late, name in enumerate(("coarse-middle-image", "fine-last-image"))
    ]
    replies = court.try_all([*ASKS, *bad])
    assert [reply.tokens for reply in replies[: len(ASKS)] if isinstance(reply, Answer)] == [a.tokens for a in whole]
    for reply in replies[len(ASKS) :]:
        assert isinstance(reply, Refusal)
        assert "steers positions 'image', and this prompt has none; send it with a picture" in reply.message


def test_prompt_positions_of_a_prompt_of_one_token_are_refused(court: Engine) -> None:
    (refusal,) = court.try_all([Ask(ids=(418,), steering="coarse-middle-prompt")])
    assert isinstance(refusal, Refusal)
    assert "steers positions 'prompt', and this prompt has none; send a longer prompt" in refusal.message
