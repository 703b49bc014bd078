"""Both model runners of vLLM steer alike. V2 runs under Triton's interpreter here, at half a second a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.engine.asking import Answer, Ask, caption, questions, yes_no
from tests.engine.engine import V2, Engine
from trimtab.plugin.requests.lost import LOST
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

_NUMBER, _OTHER = questions("number", 1)[0], questions("other", 1)[0]
ASKS = [
    replace(ask, max_tokens=tokens, full=True, ignore_eos=True)
    for ask, tokens in (
        (caption(1, steering="coarse-middle-all"), 3),
        (caption(1), 3),
        (_NUMBER.steered({"profile": "fine-last-answer", "alpha": 0.5}), 2),
        (_OTHER.steered("fine-middle-all"), 1),
        (yes_no("yes", 1)[0].steered({"profile": "coarse-last-answer", "alpha": -1}), 3),
        (Ask("who is there?", steering="fine-middle-answer"), 2),
        (Ask("who is there?", steering="none"), 2),
        (Ask("is there a red ball?", steering={"profile": "coarse-last-all", "alpha": 0.25}), 3),
        (Ask("is there a red ball?", steering="coarse-middle-answer", late=1), 2),
        (caption(2, steering="fine-last-all", late=2), 2),
    )
]


@pytest.fixture(scope="module")
def v2(model: Path, profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("log") / "v2.log", model, profiles, env=V2) as running:
        yield running


@pytest.fixture(scope="module")
def answers(v2: Engine) -> list[Answer]:
    return v2.ask(ASKS)


def test_each_engine_has_the_runner_that_it_is_said_to_have(engine: Engine, v2: Engine) -> None:
    assert "vllm.v1.worker.gpu_model_runner" in engine.call("runner")["modules"]
    assert "vllm.v1.worker.gpu.model_runner" in v2.call("runner")["modules"]
    assert v2.call("runner")["state"].startswith("Steered")


def test_both_runners_give_the_same_answers(engine: Engine, answers: list[Answer]) -> None:
    engine.forget()
    expected = engine.ask(ASKS)
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in expected]
    for here, there in zip(answers, expected, strict=True):
        np.testing.assert_allclose(here.logprobs, there.logprobs, rtol=0, atol=1e-4)


def test_the_sample_is_steered(engine: Engine, answers: list[Answer]) -> None:
    engine.forget()
    unsteered = engine.ask([ask.steered(None) for ask in ASKS])
    changed = [
        np.abs(np.array(here.logprobs[0]) - np.array(there.logprobs[0])).max() > 1e-2
        for here, there in zip(answers, unsteered, strict=True)
    ]
    assert changed == [ask.steering not in (None, "none") for ask in ASKS]


def test_v2_keeps_blocks_apart_too(v2: Engine) -> None:
    ask = caption(9, max_tokens=1)
    first, same, unsteered = (
        v2.ask([ask.steered(steering)])[0].cached for steering in ("coarse-middle-all", "coarse-middle-all", None)
    )
    assert (first, unsteered) == (0, 0)
    assert same > 0


def test_v2_ends_a_lost_request_too_and_no_other(v2: Engine, registry: Registry) -> None:
    lost, other = _NUMBER.steered("coarse-middle-answer"), _OTHER.steered("fine-last-answer")
    v2.forget()
    v2.call("damage", digest=registry["coarse-middle-answer"].digest)
    try:
        (alone,) = v2.ask([other])
        answers = v2.ask([lost, other, replace(lost, steering=None, max_tokens=1)])
    finally:
        v2.call("mend")
    assert [answer.error for answer in answers] == [LOST, None, None]
    assert answers[1].tokens == alone.tokens
