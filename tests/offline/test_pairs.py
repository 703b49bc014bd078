from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.offline.worlds import states_of
from trimtab.offline.errors import SettingError
from trimtab.offline.states import LayerStates
from trimtab.offline.states.paired import Pairs, pair_states


def read_as(states: LayerStates, ids: Sequence[str] | None = None, **request: Any) -> LayerStates:
    """The same states, said to be of other samples or of another request; model: a dict of what differs there."""
    model = states.manifest.request.model.model_copy(update=request.pop("model", {}))
    asked = states.manifest.request.model_copy(update={"model": model, **request})
    manifest = states.manifest.model_copy(update={"request": asked})
    return replace(states, manifest=manifest, sample_ids=tuple(ids) if ids else states.sample_ids)


def said(samples: Sequence[str], words: Sequence[str], start: int = 0) -> LayerStates:
    """States of the rule predicts:*, each holding its own number."""
    return read_as(
        states_of(np.arange(start, start + len(words))[:, None], words), samples, rule="predicts:*", samples=9
    )


def test_words_are_paired_by_sample_and_occurrence_wherever_they_stand() -> None:
    a = said(["s0", "s0", "s0", "s1"], ["man", "red", "man", "man"])
    b = said(["s1", "s0", "s0", "s0"], ["man", "man", "man", "red"], start=10)
    pairs = pair_states(a, b)
    assert pairs.a.values[:, 0].tolist() == [0, 1, 2, 3]
    assert pairs.b.values[:, 0].tolist() == [11, 13, 12, 10]
    assert pairs.a.labels == pairs.b.labels
    assert pairs.a.sample_ids == pairs.b.sample_ids


def test_what_has_no_counterpart_is_left_out_and_counted() -> None:
    pairs = pair_states(said(["s0", "s0", "s2"], ["man", "man", "dog"]), said(["s0", "s1"], ["man", "man"]))
    assert len(pairs) == 1
    assert pairs.left_out == (2, 1)


def test_one_row_a_sample_is_paired_whatever_the_answer() -> None:
    pairs = pair_states(states_of([[0.0], [1.0]], ["yes", "no"]), states_of([[5.0], [7.0]], ["no", "two"]))
    assert pairs.shifts.tolist() == [[5.0], [6.0]]
    assert pairs.left_out == (0, 0)


def test_the_way_back_is_the_way_with_another_sign() -> None:
    pairs = pair_states(states_of([[0.0], [1.0]], ["a", "b"]), states_of([[5.0], [7.0]], ["a", "b"]))
    assert np.array_equal(pairs.swapped().shifts, -pairs.shifts)


@pytest.mark.parametrize(
    ("differs", "message"),
    [
        ({"data": "sha256:1"}, "differ in their data"),
        ({"samples": 3}, "differ in their samples"),
        ({"rule": "mean-generated"}, "differ in their rule"),
        ({"max_new_tokens": 3}, "differ in their max new tokens"),
        ({"model": {"hidden_size": 3}}, "differ in their hidden size"),
        ({"model": {"num_layers": 9}}, "differ in their num layers"),
        ({"model": {"architecture": "Other"}}, "differ in their architecture"),
    ],
)
def test_what_cannot_be_compared_is_refused(differs: dict[str, Any], message: str) -> None:
    states = states_of([[0.0], [1.0]], ["yes", "no"])
    with pytest.raises(SettingError, match=message):
        pair_states(states, read_as(states, **differs))


def test_another_layer_and_no_common_row_are_refused() -> None:
    states = states_of([[0.0], [1.0]], ["yes", "no"])
    with pytest.raises(SettingError, match="layer 2 cannot be compared with states of layer 1"):
        pair_states(states, replace(states, layer=1))
    with pytest.raises(SettingError, match="no state in common"):
        pair_states(states, read_as(states, ["x", "y"]))


def test_halves_share_no_sample_and_lose_none() -> None:
    states = said([f"s{i // 3}" for i in range(30)], ["man"] * 30)
    first, second = pair_states(states, states).halves(seed=3)
    assert not set(first.a.sample_ids) & set(second.a.sample_ids)
    assert sorted(first.a.sample_ids + second.a.sample_ids) == sorted(states.sample_ids)
    assert len(set(first.a.sample_ids)) == 5

    def samples(half: tuple[Pairs, Pairs]) -> tuple[str, ...]:
        return half[0].a.sample_ids

    pairs = pair_states(states, states)
    assert samples(pairs.halves(3)) == samples(pairs.halves(3)) != samples(pairs.halves(4))
    with pytest.raises(SettingError, match="halves need 2 or more"):
        pair_states(said(["s0"], ["man"]), said(["s0"], ["man"])).halves(0)
