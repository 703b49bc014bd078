"""The served next-token distribution is the one of the formula: h + alpha · v after block l, in transformers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.engine.asking import Ask, caption, questions
from tests.engine.engine import Engine
from tests.engine.reference import Reference
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

NAMES = [
    f"{kind}-{at}" for kind in ("coarse", "fine") for at in ("middle-answer", "middle-all", "last-answer", "last-all")
]
ASKS: list[Ask] = [caption(3), *questions("number", 2), *questions("other", 1)]
TOKENS = 5
CLOSE = 1e-4


def test_prompts_have_the_same_tokens_in_vllm_and_transformers(engine: Engine, reference: Reference) -> None:
    answers = engine.ask(ASKS)
    assert [answer.prompt for answer in answers] == [reference.prompt(ask) for ask in ASKS]


@pytest.mark.smoke
@pytest.mark.parametrize("alpha", [1.0, -0.37])
@pytest.mark.parametrize("name", NAMES)
def test_the_served_distribution_is_that_of_transformers_with_the_vector_added(
    engine: Engine, reference: Reference, registry: Registry, name: str, alpha: float
) -> None:
    asks = [replace(ask, full=True, ignore_eos=True, max_tokens=TOKENS) for ask in ASKS]
    steering = {"profile": name, "alpha": alpha}
    answers = engine.ask([ask.steered(steering) for ask in asks])
    for ask, answer in zip(asks, answers, strict=True):
        served = np.array(answer.logprobs)
        expected = reference.logprobs(ask, answer.tokens, registry[name], alpha)
        unsteered = reference.logprobs(ask, answer.tokens)
        # Every row: the first token's, and those of tokens that were themselves generated from steered positions.
        assert np.abs(served - expected).max(axis=1).tolist() == pytest.approx([0.0] * TOKENS, abs=CLOSE)
        assert (np.abs(served - unsteered).max(axis=1) > 100 * CLOSE).all(), (
            "steering that changes nothing shows nothing"
        )


def test_the_unsteered_distribution_is_that_of_transformers(engine: Engine, reference: Reference) -> None:
    asks = [replace(ask, full=True, ignore_eos=True, max_tokens=TOKENS) for ask in ASKS]
    for ask, answer in zip(asks, engine.ask(asks), strict=True):
        np.testing.assert_allclose(answer.logprobs, reference.logprobs(ask, answer.tokens), rtol=0, atol=CLOSE)
