"""Whatever else a request asks of the sampler, it is steered, and told in a batch what it is told alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.engine.asking import Answer, Ask, Refusal, caption, questions, yes_no
from tests.engine.engine import Engine
from tests.engine.reference import Reference
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

TEXT = "is there a red ball? are there two blue stars? "
SCHEMA = {"type": "object", "properties": {"count": {"type": "integer", "maximum": 9}}, "required": ["count"]}


def _asks() -> list[Ask]:
    """One request for each wish that goes to the sampler, every one steered."""
    yes, (number,), (other,) = yes_no("yes", 2), questions("number", 1), questions("other", 1)
    return [
        replace(yes[0], steering="yes-to-no", sampling={"structured_outputs": {"choice": ["yes.", "no."]}}),
        replace(
            caption(1),
            steering={"profile": "fine-middle-all", "alpha": 2},
            sampling={"structured_outputs": {"regex": "(a|b|c|is|red|blue| ){12}"}, "max_tokens": 16},
        ),
        replace(
            number,
            steering={"profile": "coarse-middle-answer", "alpha": -2},
            sampling={"structured_outputs": {"json": SCHEMA}, "max_tokens": 24},
        ),
        replace(
            caption(2),
            steering={"profile": "coarse-last-answer", "alpha": 1.5},
            sampling={"temperature": 1.0, "seed": 7, "max_tokens": 14},
        ),
        replace(caption(2), steering="fine-last-all", sampling={"temperature": 1.0, "seed": 7, "top_p": 0.9}),
        replace(caption(3), steering={"profile": "coarse-last-all", "alpha": 0.5}, sampling={"stop": [" a", " in"]}),
        replace(
            other,
            steering={"profile": "fine-middle-answer", "alpha": 1.5},
            sampling={"min_tokens": 12, "max_tokens": 16},
        ),
        replace(yes[1], steering="yes-to-no", sampling={"logit_bias": {"1": -100, "500": 3}}),
        replace(
            caption(4),
            steering={"profile": "coarse-middle-all", "alpha": 2},
            sampling={"repetition_penalty": 1.3, "presence_penalty": 0.5, "bad_words": ["the"]},
        ),
        replace(
            Ask(TEXT, n=3, ignore_eos=True), steering={"profile": "coarse-last-answer", "alpha": -2}, max_tokens=10
        ),
        replace(Ask(TEXT), steering={"profile": "fine-middle-all", "alpha": -2}, sampling={"prompt_logprobs": 2}),
        replace(
            Ask(TEXT), steering={"profile": "coarse-middle-all", "alpha": -2}, max_tokens=5, sampling={"logprobs": 3}
        ),
    ]


@pytest.fixture(scope="module")
def alone(engine: Engine) -> list[Answer]:
    return engine.ask_alone(_asks())


def _told(answers: list[Answer]) -> list[tuple[list[list[int]], list[str]]]:
    return [(answer.all_tokens, answer.texts) for answer in answers]


def test_wishes_of_every_kind_are_met_in_one_steered_batch_as_alone(engine: Engine, alone: list[Answer]) -> None:
    for asks, expected in ((_asks(), alone), (_asks()[::-1], alone[::-1])):
        engine.forget()
        answers = engine.ask([replace(ask, late=number // 2) for number, ask in enumerate(asks)])
        assert _told(answers) == _told(expected)
        for here, there in zip(answers, expected, strict=True):
            for one, other in ((here.logprobs, there.logprobs), (here.prompt_logprobs, there.prompt_logprobs)):
                assert len(one) == len(other)
                for step, expected_step in zip(one, other, strict=True):
                    np.testing.assert_allclose(sorted(step), sorted(expected_step), rtol=0, atol=1e-4)


def test_the_wishes_are_met_and_steering_shows_in_every_answer(engine: Engine, alone: list[Answer]) -> None:
    unsteered = engine.ask_alone([ask.steered(None) for ask in _asks()])
    assert (unsteered[0].text, alone[0].text) == ("yes.", "no.")
    assert all(set(answers[2].text) <= set('{"count": 0123456789}\n') for answers in (alone, unsteered))
    assert [len(answer.all_tokens) for answer in alone] == [3 if ask.n == 3 else 1 for ask in _asks()]
    assert len(alone[6].tokens) >= 12
    same = [here.texts == there.texts for here, there in zip(alone, unsteered, strict=True)]
    assert sum(same) <= 3, same


def test_the_prompt_of_a_profile_that_steers_all_has_the_log_probabilities_of_transformers(
    engine: Engine, reference: Reference, registry: Registry
) -> None:
    ask = Ask(TEXT, max_tokens=2, ignore_eos=True, full=True, sampling={"prompt_logprobs": -1})
    for name in ("coarse-middle-all", "fine-last-all", "coarse-middle-answer"):
        engine.forget()
        (answer,) = engine.ask([ask.steered(name)])
        served = np.array(answer.prompt_logprobs)
        expected = reference.prompt_logprobs(ask, registry[name], 1.0)
        np.testing.assert_allclose(served, expected, rtol=0, atol=1e-4)
        changed = np.abs(served - reference.prompt_logprobs(ask)).max(axis=1) > 1e-2
        assert changed.all() if name.endswith("all") else not changed.any()


def test_prompt_log_probabilities_are_those_of_the_own_steering_when_others_have_warmed_the_cache(
    engine: Engine,
) -> None:
    engine.forget()
    ask = Ask(TEXT * 4, max_tokens=1, full=True, sampling={"prompt_logprobs": -1})
    (cold,) = engine.ask([ask.steered("coarse-middle-all")])
    for other in (None, "fine-middle-all", "coarse-middle-all"):
        engine.ask([replace(ask, steering=other, sampling={})])
    (warm,) = engine.ask([ask.steered("coarse-middle-all")])
    np.testing.assert_allclose(warm.prompt_logprobs, cold.prompt_logprobs, rtol=0, atol=1e-4)


def test_a_request_that_is_taken_back_changes_nothing_for_its_batchmates(engine: Engine, alone: list[Answer]) -> None:
    engine.forget()
    taken_back: list[Any] = [
        caption(seed, max_tokens=60, ignore_eos=True, steering=steering, late=seed % 3, abort=abort)
        for seed, steering, abort in (
            (11, "coarse-middle-all", 1 + 1),
            (12, {"profile": "fine-last-answer", "alpha": -2}, 4),
            (13, None, 6),
        )
    ]
    asks = _asks()
    replies = engine.try_all([taken_back[0], *asks[:4], taken_back[1], *asks[4:], taken_back[2]])
    gone = [number for number, reply in enumerate(replies) if isinstance(reply, Refusal)]
    assert gone == [0, 5, len(replies) - 1]
    assert _told([reply for reply in replies if isinstance(reply, Answer)]) == _told(alone)
