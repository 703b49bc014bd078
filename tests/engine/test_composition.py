"""Several profiles in one request: their additions are summed, and none of them sees another's at its own layer."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from tests.engine.asking import Answer, Ask
from tests.engine.engine import Engine
from tests.engine.lawbook import CLOSE, LATE, MIDDLE, PICTURE, TEXT, prompt
from tests.engine.reference import Parts, Reference
from trimtab.vectors import Profile, Registry

pytestmark = pytest.mark.engine

ASKS = [PICTURE, TEXT, prompt(80, 4, scene=2)]
MIXES: list[list[tuple[str, float]]] = [
    [("a", 1.0), ("b", 1.0)],
    [("a", 0.9), ("b", 0.7), ("sum", -0.3), ("many", 1.1)],  # the sum of three or more depends on its order
    [("a", 0.5), ("coarse-last-answer", -1.0)],
    [("fine-middle-all", 1.0), ("follows", 0.75)],
    [("once", 1.0), ("gate-cosine-20", 1.0), ("a", -0.5)],
    [("coarse-middle-text", 1.0), ("fine-middle-prompt", 1.0), ("fine-last-all", 0.3), ("once-last", 1.0)],
    [("many", 1.0), ("gate-euclidean-256", 1.0), ("fine-middle-answer", -0.7), ("coarse-middle-prompt", 1.5)],
]


def _steering(mix: list[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"profile": name, "alpha": alpha} for name, alpha in mix]


def _parts(law: Registry, mix: list[tuple[str, float]]) -> Parts:
    return [(law[name], alpha) for name, alpha in mix]


def _bits(answers: list[Answer]) -> list[Any]:
    return [(answer.tokens, answer.logprobs) for answer in answers]


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: "+".join(name for name, _ in mix))
def test_profiles_add_up_as_the_formula_says(
    court: Engine, reference: Reference, law: Registry, mix: list[tuple[str, float]]
) -> None:
    asks = [ask.steered(_steering(mix)) for ask in ASKS]
    court.forget()
    for ask, answer in zip(asks, court.ask(asks), strict=True):
        expected = reference.summed(ask, answer.tokens, _parts(law, mix))
        np.testing.assert_allclose(answer.logprobs, expected, rtol=0, atol=CLOSE)
        for left_out in range(len(mix)):
            fewer = reference.summed(ask, answer.tokens, _parts(law, mix[:left_out] + mix[left_out + 1 :]))
            assert np.abs(fewer - expected).max() > 100 * CLOSE, f"{mix[left_out]} shows in nothing"


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: "+".join(name for name, _ in mix))
def test_the_order_of_profiles_changes_no_bit(court: Engine, mix: list[tuple[str, float]]) -> None:
    shuffled = random.Random(0).sample(mix, len(mix))
    found = []
    for order in (mix, mix[::-1], shuffled):
        court.forget()
        found.append(_bits(court.ask([ask.steered(_steering(order)) for ask in ASKS])))
    assert found[0] == found[1] == found[2]


def test_a_list_of_one_is_that_one(court: Engine) -> None:
    court.forget()
    alone = _bits(court.ask([ask.steered("gate-cosine-64") for ask in ASKS]))
    court.forget()
    assert _bits(court.ask([ask.steered(["gate-cosine-64"]) for ask in ASKS])) == alone


def test_steering_by_a_and_by_b_is_steering_by_their_sum(court: Engine) -> None:
    court.forget()
    both = court.ask([ask.steered(["a", "b"]) for ask in ASKS])
    for here, there in zip(both, court.ask([ask.steered("sum") for ask in ASKS]), strict=True):
        assert here.tokens == there.tokens
        np.testing.assert_allclose(here.logprobs, there.logprobs, rtol=0, atol=CLOSE)


def test_a_vector_and_its_opposite_are_nothing(court: Engine) -> None:
    court.forget()
    mix = _steering([("sum", 1.0), ("a", -1.0), ("b", -1.0)])
    nothing = court.ask([ask.steered(mix) for ask in ASKS])
    for here, there in zip(nothing, court.ask(ASKS), strict=True):
        assert here.tokens == there.tokens
        np.testing.assert_allclose(here.logprobs, there.logprobs, rtol=0, atol=CLOSE)


def test_a_gate_sees_additions_of_earlier_layers_and_none_of_its_own(
    court: Engine, reference: Reference, law: Registry
) -> None:
    # A vector twice as long as the stream: a gate that saw it would choose other rows, and one behind it does.
    mix = [("large", 1.0), ("follows", 1.0)]
    both = _parts(law, mix)
    for ask in ASKS:
        (answer,) = court.ask_alone([ask.steered(_steering(mix))])
        expected = reference.summed(ask, answer.tokens, both)
        np.testing.assert_allclose(answer.logprobs, expected, rtol=0, atol=2 * CLOSE)
        plain, moved = (reference.stream(ask, answer.tokens, [MIDDLE, LATE], parts) for parts in ([], both))
        follows, shift = law["follows"], law["large"].tensors[MIDDLE].named["vector"]
        seen = _chosen(follows, MIDDLE, plain[MIDDLE])
        assert seen != _chosen(follows, MIDDLE, plain[MIDDLE] + shift)
        assert _chosen(follows, LATE, plain[LATE]) != _chosen(follows, LATE, moved[LATE])


def _chosen(profile: Profile, layer: int, stream: Any) -> list[int]:
    centroids = profile.tensors[layer].named["centroids"]
    return [int(np.argmin(np.linalg.norm(centroids - row, axis=1))) for row in stream]


def test_batchmates_with_many_profiles_keep_theirs_apart(court: Engine) -> None:
    asks = [ask.steered(_steering(mix)) for mix in MIXES for ask in ASKS] + ASKS
    alone = court.ask_alone(asks)
    court.forget()
    for here, there in zip(court.ask(asks), alone, strict=True):
        assert here.tokens == there.tokens
        np.testing.assert_allclose(here.logprobs, there.logprobs, rtol=0, atol=CLOSE)


@pytest.mark.parametrize(
    ("steering", "says"),
    [
        (["a", "b", "sum", "many", "large"], "a list of 5; allowed are 1 to 4 profiles"),
        ([], "a list of 0; allowed are 1 to 4 profiles"),
        (["a", {"profile": "a", "alpha": 0.5}], "names 'a' twice"),
        (["a", "none"], '"none" stands alone'),
    ],
)
def test_a_list_that_cannot_be_served_is_refused(court: Engine, steering: object, says: str) -> None:
    refused, served = court.try_all([TEXT.steered(steering), Ask("who is there?", steering=["a", "b"])])
    assert says in getattr(refused, "message", "")
    assert isinstance(served, Answer)
