from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.offline.test_dictionary import clouds
from trimtab.offline.concepts import class_means
from trimtab.offline.errors import SettingError
from trimtab.offline.steering.choose_pair import Pair, judge, pair_profile, pairs_near, select
from trimtab.vectors import ConceptDictionary, Profile
from trimtab.vectors.profile import FineLayer

PAIR = Pair(0, 1, "a", "b")
ANSWERS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=30)


def answered(dictionary: ConceptDictionary, profile: Profile, states: np.ndarray) -> list[str]:
    """What a model whose answer is the nearest concept would say about these states, with the profile on."""
    tensors = profile.tensors[dictionary.layer]
    assert isinstance(tensors, FineLayer)
    steered = states + tensors.vectors[dictionary.nearest(states)]
    return [dictionary.labels[i] for i in dictionary.nearest(steered)]


def test_the_pair_whose_concepts_are_the_two_means_comes_first() -> None:
    states = clouds()
    dictionary = class_means(states)
    yes, no = (states.values[states.of({word})].mean(axis=0) for word in ("yes", "no"))
    first, *others = pairs_near(dictionary, yes, no, keep=5)
    assert (first.original, first.target) == ("yes", "no")
    assert len(others) == 4
    assert all(pair.i != pair.j for pair in others)
    three = states.values[states.of({"three"})].mean(axis=0)
    assert pairs_near(dictionary, yes, three, keep=1)[0].target == "three"
    back = pairs_near(dictionary, no, yes, keep=1)[0]
    assert (back.i, back.j) == (first.j, first.i)


def test_pairs_of_one_label_are_left_out_and_a_dictionary_of_one_label_is_refused() -> None:
    states = clouds()
    only_yes = class_means(states.at(np.flatnonzero(states.of({"yes"}))))
    with pytest.raises(SettingError, match="larger k"):
        pairs_near(only_yes, states.values[0], states.values[0], keep=1)
    with pytest.raises(SettingError, match="1 or more"):
        pairs_near(class_means(states), states.values[0], states.values[0], keep=0)


def test_a_pairs_profile_moves_concept_i_onto_concept_j_and_nothing_else() -> None:
    dictionary = class_means(clouds())
    u = dictionary.centroids
    tensors = pair_profile("pair", dictionary, Pair(2, 0, "x", "y")).tensors[dictionary.layer]
    assert isinstance(tensors, FineLayer)
    np.testing.assert_allclose(u[2] + tensors.vectors[2], u[0], atol=1e-5)
    assert not np.delete(tensors.vectors, 2, axis=0).any()
    with pytest.raises(SettingError, match="the pair is 0 → 99"):
        pair_profile("pair", dictionary, Pair(0, 99, "x", "y"))


def test_the_score_is_the_smallest_gain_inside_the_group_less_the_largest_outside() -> None:
    before = ["a"] * 10
    after = ["b"] * 6 + ["c"] * 3 + ["d"]
    judged = judge(PAIR, before, after)
    assert dict(judged.gains) == {"a": -10, "b": 6, "c": 3, "d": 1}
    assert (judged.group, judged.score, judged.kept) == (("b",), 3, True)
    shared = judge(PAIR, before, ["b"] * 4 + ["c"] * 4 + ["d"] * 2)
    assert (shared.group, shared.score, shared.kept) == (("b", "c"), 2, False)


@given(ANSWERS, st.randoms(use_true_random=False))
def test_answers_that_only_change_places_gain_nothing(before: list[str], rng: object) -> None:
    after = list(before)
    rng.shuffle(after)  # type: ignore[attr-defined]
    judged = judge(PAIR, before, after)
    assert (judged.gains, judged.group, judged.score, judged.kept) == ((), (), 0, False)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcde")), min_size=1, max_size=40))
def test_what_some_answers_gain_others_lose_and_a_group_gains(pairs: list[tuple[str, str]]) -> None:
    judged = judge(PAIR, [old for old, _ in pairs], [new for _, new in pairs])
    gains = dict(judged.gains)
    assert sum(gains.values()) == 0
    inside = [gains[text] for text in judged.group]
    outside = [max(gain, 0) for text, gain in gains.items() if text not in judged.group]
    assert all(gain > 0 for gain in inside)
    if inside:
        assert judged.score == min(inside) - max(outside, default=0) > 0


def test_the_pair_that_gathers_on_one_answer_is_ranked_above_one_that_scatters() -> None:
    states = clouds()
    states = states.at(np.flatnonzero(~states.of({"two"})))  # it shares its cloud with "three"
    dictionary = class_means(states)
    labels = dictionary.labels
    pairs = [Pair(i, j, labels[i], labels[j]) for i in range(len(labels)) for j in range(len(labels)) if i != j]
    candidates = {pair: pair_profile(f"pair-{pair.i}-{pair.j}", dictionary, pair) for pair in pairs}
    before = [labels[i] for i in dictionary.nearest(states.values)]

    def answer(profile: Profile, states: Sequence[np.ndarray]) -> list[str]:
        return answered(dictionary, profile, np.asarray(states))

    verdicts = select(candidates, list(states.values), before, answer)
    for verdict in verdicts:
        assert verdict.kept
        assert verdict.group == (verdict.pair.target,)
        assert verdict.score == before.count(verdict.pair.original)
    assert [one.score for one in verdicts] == sorted((one.score for one in verdicts), reverse=True)

    # Two answers gain four each, one gains three: the smaller gain is in one place.
    said = {pairs[0]: [*"aaaabbbbxx"], pairs[1]: [*"aaaxxxxxxx"]}
    order = select(
        {pair: candidates[pair] for pair in said},
        range(10),
        ["x"] * 10,
        lambda profile, _: next(answers for pair, answers in said.items() if candidates[pair] is profile),
    )
    assert [(one.pair, one.score) for one in order] == [(pairs[1], 3), (pairs[0], 4)]


def test_a_round_that_lost_an_answer_is_refused() -> None:
    dictionary = class_means(clouds())
    candidates = {PAIR: pair_profile("pair", dictionary, PAIR)}
    with pytest.raises(SettingError, match="2 samples have 2 answers before and 1 with pair"):
        select(candidates, [1, 2], ["a", "b"], lambda profile, samples: ["a"])
