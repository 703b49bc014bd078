"""Background states: the other positions of the same answers, kept beside those of a rule and read apart from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.offline.worlds import questions, write_data
from trimtab.offline.errors import SettingError
from trimtab.offline.models import Reader
from trimtab.offline.models.reader import Reading
from trimtab.offline.states import (
    LastPrompt,
    MeanGenerated,
    Predicts,
    ShardedStates,
    load_states,
    represent,
)
from trimtab.offline.states.background import drawn, others
from trimtab.offline.states.rules import Rule, parse
from trimtab.offline.states.store import load_background
from trimtab.vectors.states import read_states_manifest

ALL = 1000
"""More than any answer has."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", 40, pictured=True)


@pytest.fixture(scope="module")
def read(llava_reader: Reader) -> dict[str, Reading]:
    """What the model answers to each sample alone, cut after eight tokens."""
    return {f"s{i}": llava_reader.read([question], [1], 8)[0] for i, question in enumerate(questions(40, True))}


def met(reading: Reading) -> int:
    """How many positions a profile that is served on answers meets: all that predict a token of it, or its end."""
    return len(reading.answer.tokens) + (reading.end is not None)


@pytest.mark.parametrize("rule", ["last-prompt", "predicts:man,woman,red", "predicts:*"])
def test_with_the_rules_own_they_are_every_position_that_a_served_profile_meets(
    llava_reader: Reader, data: Path, tmp_path: Path, read: dict[str, Reading], rule: str
) -> None:
    represent(llava_reader, data, parse(rule), [1], tmp_path / "reps", max_new_tokens=8, background=ALL)
    kept, beside = load_states(tmp_path / "reps", 1), load_background(tmp_path / "reps", 1)
    assert beside is not None
    assert {one.end for one in read.values()} == {None, llava_reader.tokenizer.eos_token_id}, "one of them goes untried"
    places = {
        (name, at)
        for states in (kept, beside)
        for name, at in zip(states.sample_ids, states.positions.tolist(), strict=True)
    }
    assert len(places) == len(kept.values) + len(beside.values), "a position is kept twice"
    assert places == {(name, at) for name, one in read.items() for at in range(met(one))}
    for row, (name, at) in enumerate(zip(beside.sample_ids, beside.positions.tolist(), strict=True)):
        one = read[name]
        np.testing.assert_allclose(beside.values[row], one.stream[1][at], atol=1e-4)
        assert beside.tokens[row] == (*one.answer.tokens, one.end)[at]
        assert (beside.labels[row] == "") == (at == len(one.answer.tokens))
        assert beside.labels[row] in one.answer.text


def test_a_rule_gives_the_states_that_it_gives_without_them(llava_reader: Reader, data: Path, tmp_path: Path) -> None:
    for rule in (LastPrompt(), Predicts(("man", "red")), MeanGenerated()):
        with_, without = tmp_path / f"{rule}-with", tmp_path / f"{rule}-without"
        represent(llava_reader, data, rule, [1], with_, max_new_tokens=8, batch_size=2)
        represent(llava_reader, data, rule, [1], without, max_new_tokens=8, batch_size=2, background=0)
        ours, theirs = load_states(with_, 1), load_states(without, 1)
        assert (ours.sample_ids, ours.labels) == (theirs.sample_ids, theirs.labels)
        assert ours.positions.tolist() == theirs.positions.tolist()
        np.testing.assert_allclose(ours.values, theirs.values, atol=1e-4)
        assert len(ShardedStates(with_, 1)) == sum(len(block.values) for block in ShardedStates(with_, 1))
        assert ours.weights.tolist() == [1] * len(ours.values)
        assert load_background(without, 1) is None
        assert read_states_manifest(without).request.background is None


@pytest.mark.parametrize("rule", [LastPrompt(), Predicts(("man", "woman")), MeanGenerated()], ids=str)
def test_the_weights_of_an_answer_are_its_positions_that_the_rule_does_not_keep(
    llava_reader: Reader, data: Path, tmp_path: Path, read: dict[str, Reading], rule: Rule
) -> None:
    """Also those of an answer without any state of the rule: a served profile meets it like the others."""
    represent(llava_reader, data, rule, [1], tmp_path / "reps", max_new_tokens=8, batch_size=2, background=2)
    beside = load_background(tmp_path / "reps", 1)
    assert beside is not None
    assert max(beside.sample_ids.count(name) for name in set(beside.sample_ids)) == 2
    weight = dict.fromkeys(beside.sample_ids, 0.0)
    for name, one in zip(beside.sample_ids, beside.weights.tolist(), strict=True):
        weight[name] += one
    expected = {}
    for name, one in read.items():
        kept = [state for state in rule.states(one.answer, llava_reader.spell) if len(state.positions) == 1]
        expected[name] = met(one) - len(kept)
    assert weight == pytest.approx({name: count for name, count in expected.items() if count})


def test_the_draw_is_the_samples_own_and_spares_no_position(read: dict[str, Reading]) -> None:
    reading = max(read.values(), key=met)
    every = others(reading.answer, reading.end, [])
    assert drawn(every, 3, "a") == drawn(every, 3, "a")
    draws = {tuple(one.positions[0] for one in drawn(every, 3, f"s{i}")) for i in range(200)}
    assert len(draws) > 20
    assert all(list(draw) == sorted(draw) for draw in draws)
    assert {at for draw in draws for at in draw} == set(range(met(reading)))


def test_what_was_begun_with_another_number_of_them_is_not_continued(
    llava_reader: Reader, data: Path, tmp_path: Path
) -> None:
    represent(llava_reader, data, LastPrompt(), [1], tmp_path / "reps", limit=4)
    with pytest.raises(SettingError, match=r"another background \(4, now 2\)"):
        represent(llava_reader, data, LastPrompt(), [1], tmp_path / "reps", limit=4, background=2, resume=True)
