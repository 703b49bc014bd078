"""A real engine counts which concepts its gates choose: each position once, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np
import pytest

from tests.engine.asking import Ask, caption, questions
from tests.engine.conftest import MIDDLE
from tests.engine.engine import Engine
from tests.engine.reference import Reference
from trimtab.offline.states import LayerStates
from trimtab.vectors import Registry
from trimtab.vectors.nearest import nearest

pytestmark = pytest.mark.engine


class _Long(TypedDict):
    max_tokens: int
    ignore_eos: bool


LONG: _Long = {"max_tokens": 5, "ignore_eos": True}
LAYERS = {"middle": 2, "last": 5}


def counted(engine: Engine, asks: Sequence[Ask], preempt: Sequence[int] = ()) -> dict[str, float]:
    """The positions of each profile, layer and concept that these requests add; nothing is cached before."""
    engine.forget()
    before = engine.call("concepts")
    engine.ask(asks, preempt)
    after = engine.call("concepts")
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def of_profile(found: dict[str, float], name: str) -> float:
    return sum(value for key, value in found.items() if key.startswith(f"{name}/"))


@pytest.mark.parametrize("where", ["middle", "last"])
@pytest.mark.parametrize("at", ["answer", "all"])
def test_each_steered_position_counts_once(engine: Engine, reference: Reference, where: str, at: str) -> None:
    asks = [Ask("what color is the car?", **LONG), *questions("number", 2, **LONG), caption(3, **LONG)]
    name = f"fine-{where}-{at}"
    expected = sum(len(reference.positions(ask, at, LONG["max_tokens"] - 1)) for ask in asks)
    found = counted(engine, [replace(ask, steering=name) for ask in asks])
    assert of_profile(found, name) == expected
    assert {key.rpartition("/")[0] for key in found} == {f"{name}/{LAYERS[where]}"}
    assert len(found) > 1


def test_unsteered_requests_and_coarse_profiles_count_nothing_beside_those_that_count(engine: Engine) -> None:
    one = Ask("what is this?", **LONG)
    both = [{"profile": "fine-last-answer", "alpha": 1.0}, {"profile": "fine-middle-answer", "alpha": 0.0}]
    batch = [one, replace(one, steering="coarse-last-all"), replace(one, steering=both), one]
    found = counted(engine, batch)
    assert of_profile(found, "fine-last-answer") == of_profile(found, "fine-middle-answer") == LONG["max_tokens"]
    assert sum(found.values()) == 2 * LONG["max_tokens"]


def test_a_prompt_in_pieces_counts_its_positions_once(engine: Engine, reference: Reference) -> None:
    ask = Ask("is there a dog in the picture? " * 9, **LONG)
    engine.call("chunk", size=16)
    try:
        found = counted(engine, [replace(ask, steering="fine-last-all")])
    finally:
        engine.call("chunk", size=0)
    assert of_profile(found, "fine-last-all") == len(reference.positions(ask, "all", LONG["max_tokens"] - 1))


def test_the_concept_that_is_counted_is_the_nearest_one(
    engine: Engine, reference: Reference, registry: Registry
) -> None:
    asks = [*questions("yes/no", 3, max_tokens=1), *questions("other", 3, max_tokens=1), Ask("who is there?")]
    profile = registry["watched"]
    centroids = profile.tensors[MIDDLE].named["centroids"]
    states = np.stack([reference.stream(ask, [0], [MIDDLE])[MIDDLE][-1] for ask in asks])
    chosen = np.bincount(nearest(states.astype(np.float32), centroids), minlength=len(centroids))
    found = counted(engine, [replace(ask, steering="watched", max_tokens=1) for ask in asks])
    assert [found.get(f"watched/{MIDDLE}/{k}", 0) for k in range(len(centroids))] == chosen.tolist()


def test_a_profile_that_watches_changes_no_number_and_shares_every_block(engine: Engine) -> None:
    asks = [Ask("is there a dog in the picture? " * 9, full=True, **LONG), *questions("other", 2, full=True, **LONG)]
    watched = [replace(ask, steering="watched") for ask in asks]
    for plain, other in zip(engine.ask_alone(asks), engine.ask_alone(watched), strict=True):
        assert plain.tokens == other.tokens
        assert plain.logprobs == other.logprobs
    engine.forget()
    engine.ask(watched[:1])
    assert engine.ask(asks[:1])[0].cached == engine.ask(watched[:1])[0].cached > 32


def test_what_a_watch_expects_is_what_it_counts_on_the_same_questions(
    registry: Registry, rows: dict[int, LayerStates]
) -> None:
    expected = registry["watched"].manifest.expected
    assert expected is not None
    centroids = registry["watched"].tensors[MIDDLE].named["centroids"]
    counts = np.bincount(nearest(rows[MIDDLE].values, centroids), minlength=len(centroids))
    assert expected[MIDDLE] == pytest.approx((counts / counts.sum()).tolist())


def test_a_decision_that_is_kept_counts_at_each_position(engine: Engine) -> None:
    found = counted(engine, [Ask("who is there?", steering="watched", **LONG)])
    assert list(found.values()) == [LONG["max_tokens"]]
