"""Who is not steered gets the bits of an engine that has never heard of trimtab; so does who is steered by zero."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.asking import Answer, Ask, caption, questions, yes_no
from tests.engine.engine import Engine

pytestmark = pytest.mark.engine

# At random, from a generator that is ours in an engine that was asked to steer.
DRAWN = [{"temperature": 2.0, "seed": seed} for seed in (11, 12)]
ASKS = [
    replace(ask, full=True)
    for ask in (
        caption(1, max_tokens=12),
        *questions("number", 2),
        *questions("other", 2),
        *yes_no("yes", 1),
        *(caption(2, max_tokens=12, ignore_eos=True, sampling=drawn) for drawn in DRAWN),
        Ask("who is there? " * 12, max_tokens=5, ignore_eos=True),
    )
]
LIGHT = [
    "trimtab.plugin",
    "trimtab.plugin.asking",
    "trimtab.plugin.compat",
    "trimtab.plugin.compat.torchvision",
    "trimtab.plugin.compat.wrapping",
]
EVERY_OP = [f"{kind}-{where}-all" for kind in ("coarse", "fine") for where in ("middle", "last")]


@pytest.fixture(scope="module")
def expected(plain: Engine) -> list[Answer]:
    return plain.ask(ASKS)


def test_the_plain_engine_has_no_armed_layer(plain: Engine, engine: Engine) -> None:
    assert not any("trimtab" in layer for layer in plain.call("armed")["layers"])
    assert any("trimtab" in layer for layer in engine.call("armed")["layers"])


def test_an_engine_that_did_not_ask_is_plain_vllm(model: Path, expected: list[Answer], tmp_path: Path) -> None:
    # The plugin is installed, as for everybody who has it and serves another model.
    with Engine(tmp_path / "installed.log", model, None) as bare:
        assert bare.call("modules") == LIGHT
        answers = bare.ask([*ASKS, replace(ASKS[0], steering="x", extra={"capture": 1, "trimtab": [1]})])
        assert bare.call("modules") == LIGHT
        assert not any("trimtab" in layer for layer in bare.call("armed")["layers"])
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in [*expected, expected[0]]]
    assert [answer.logprobs for answer in answers[:-1]] == [answer.logprobs for answer in expected]


def test_the_drawn_answers_hang_on_their_seeds(expected: list[Answer]) -> None:
    one, other = (answer for ask, answer in zip(ASKS, expected, strict=True) if ask.sampling in DRAWN)
    assert one.tokens != other.tokens


@pytest.mark.parametrize("steering", [None, "none"])
def test_an_unsteered_request_has_the_bits_of_an_engine_without_the_plugin(
    engine: Engine, expected: list[Answer], steering: str | None
) -> None:
    engine.forget()
    answers = engine.ask([ask.steered(steering) for ask in ASKS])
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in expected]
    assert [answer.logprobs for answer in answers] == [answer.logprobs for answer in expected]


@pytest.mark.parametrize("name", EVERY_OP)
def test_alpha_zero_goes_through_the_op_and_changes_no_bit(engine: Engine, expected: list[Answer], name: str) -> None:
    engine.forget()
    answers = engine.ask([ask.steered({"profile": name, "alpha": 0}) for ask in ASKS])
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in expected]
    assert [answer.logprobs for answer in answers] == [answer.logprobs for answer in expected]


def test_alpha_one_changes_bits(engine: Engine, expected: list[Answer]) -> None:
    # Otherwise the laws above would hold for an engine that steers nobody.
    for name in EVERY_OP:
        engine.forget()
        answers = engine.ask([ask.steered(name) for ask in ASKS])
        assert all(here.logprobs != there.logprobs for here, there in zip(answers, expected, strict=True))
