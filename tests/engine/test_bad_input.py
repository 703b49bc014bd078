"""What cannot be had is an error of its own, before anything is scheduled; the engine serves on."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.engine.asking import Ask, Refusal, caption
from tests.engine.engine import Engine, RefusedError

pytestmark = pytest.mark.engine

NAME = "coarse-last-all"

# What is asked, the field at fault, and what the message says.
BAD: dict[str, tuple[Any, str, str]] = {
    "unknown profile": ("coarse-last-al", "steering.profile", "did you mean 'coarse-last-all'?"),
    "unknown profile in an object": ({"profile": "Yes-to-No"}, "steering.profile", "did you mean 'yes-to-no'?"),
    "a name unlike any": ("🦆" * 5000, "steering.profile", "loaded: coarse-last-all"),
    "an empty name": ("", "steering.profile", "unknown profile ''"),
    "a path": ("../model", "steering.profile", "unknown profile '../model'"),
    "unknown field": ({"profile": NAME, "alhpa": 1}, "steering.alhpa", "allowed: profile, alpha"),
    "no profile": ({"alpha": 1}, "steering.profile", "must be the name of a profile"),
    "an empty object": ({}, "steering.profile", "must be the name of a profile"),
    "a profile that is a number": ({"profile": 7}, "steering.profile", "must be the name of a profile"),
    "alpha NaN": ({"profile": NAME, "alpha": math.nan}, "steering.alpha", "allowed is a number from -2 to 2"),
    "alpha infinite": ({"profile": NAME, "alpha": math.inf}, "steering.alpha", "allowed is a number from -2 to 2"),
    "alpha minus infinite": ({"profile": NAME, "alpha": -math.inf}, "steering.alpha", "a number from -2 to 2"),
    "alpha too large": ({"profile": NAME, "alpha": 2.001}, "steering.alpha", "alpha is 2.001; allowed is"),
    "alpha too small": ({"profile": NAME, "alpha": -3}, "steering.alpha", "alpha is -3; allowed is"),
    "alpha as text": ({"profile": NAME, "alpha": "1"}, "steering.alpha", "not str"),
    "alpha as a bool": ({"profile": NAME, "alpha": True}, "steering.alpha", "not bool"),
    "alpha null": ({"profile": NAME, "alpha": None}, "steering.alpha", "leave it out for the default"),
    "a list of five": ([{"profile": NAME}] * 5, "steering", "a list of 5; allowed are 1 to 4 profiles"),
    "one name twice": ([NAME, {"profile": NAME, "alpha": 0.5}], "steering", "twice; name it once"),
    "an empty list": ([], "steering", "a list of 0; allowed are 1 to 4 profiles"),
    "a list in a list": ([[NAME]], "steering", "not list"),
    "none in a list": (["none"], "steering", '"none" stands alone'),
    "none with a strength": ({"profile": "none", "alpha": 1}, "steering.profile", '"none" takes no strength'),
    "a number": (0, "steering", "not int"),
    "a bool": (False, "steering", "not bool"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_the_field_and_the_way_out(engine: Engine, case: str) -> None:
    steering, param, says = BAD[case]
    (refusal,) = engine.try_all([caption(1, steering=steering)])
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.param) == ("VLLMValidationError", param)
    assert says in refusal.message
    assert len(refusal.message) < 500


def test_every_message_is_one_of_its_own(engine: Engine) -> None:
    refusals = engine.try_all([Ask("who?", steering=steering) for steering, _, _ in BAD.values()])
    messages = {reply.message for reply in refusals if isinstance(reply, Refusal)}
    # "no profile", "an empty object" and "a profile that is a number" are one mistake.
    assert len(messages) == len(BAD) - 2


@pytest.mark.parametrize("wire", [{"profile": NAME, "alpha": 1.0}, None, {}, 1])
def test_the_resolved_form_cannot_be_sent_by_a_caller(engine: Engine, wire: object) -> None:
    (refusal,) = engine.try_all([caption(1, extra={"trimtab": wire})])
    assert isinstance(refusal, Refusal)
    assert "reserved" in refusal.message


def test_bad_input_raises_from_chat(engine: Engine) -> None:
    with pytest.raises(
        RefusedError, match="VLLMValidationError: unknown profile 'yes-to-now'; did you mean 'yes-to-no'"
    ):
        engine.chat([caption(1, steering="yes-to-now")])


def test_the_engine_serves_and_steers_after_all_of_them(engine: Engine) -> None:
    asks = [caption(1), caption(1, steering=NAME), caption(1, steering=[{"profile": NAME}])]
    expected = [answer.tokens for answer in engine.ask_alone(asks)]
    engine.try_all([caption(1, steering=steering) for steering, _, _ in BAD.values()])
    plain, steered, listed = (answer.tokens for answer in engine.ask_alone(asks))
    assert [plain, steered, listed] == expected
    assert steered == listed != plain


@pytest.mark.smoke
def test_the_picture_of_a_refused_request_is_served_to_the_next_who_sends_it(engine: Engine) -> None:
    # vLLM's front end takes a picture that it has rendered for sent, and sends the next one without its data.
    new = [caption(seed) for seed in (901, 902, 903)]
    with pytest.raises(RefusedError, match="yes-to-now"):
        engine.chat([new[0], new[1].steered("yes-to-now"), new[2]])
    first = engine.ask_alone(new)
    assert all(answer.tokens for answer in first)
    assert [answer.tokens for answer in engine.ask_alone(new)] == [answer.tokens for answer in first]


def test_other_extra_args_pass(engine: Engine) -> None:
    asks = [caption(1, steering=NAME), caption(1, steering=NAME, extra={"somebody": "else"})]
    first, second = engine.ask_alone(asks)
    assert first.tokens == second.tokens
