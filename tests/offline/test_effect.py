"""What heads every table: turned, otherwise unchanged, strayed, off target, stutter."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.offline.evaluation.effect import effect_of
from trimtab.offline.evaluation.gender import GENDERED, NEUTRAL, Lexicon, converted, intact
from trimtab.offline.evaluation.repetition import repetition
from trimtab.offline.findings import Effect, Measured

LEXICON = Lexicon()
WORDS = st.lists(st.sampled_from(["a", "an", "man", "her", "person", "their", "orange", "near"]), max_size=7)


def shares(effect: Effect) -> dict[str, tuple[float, int]]:
    found = {name: getattr(effect, name) for name in type(effect).model_fields}
    return {name: (one.value, one.n) for name, one in found.items() if isinstance(one, Measured)}


def captions(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[float, int]]:
    meant = {"gendered": "neutral"}
    return shares(effect_of(before, after, lambda _, text: LEXICON.kind(text), meant, LEXICON.same))


def test_what_was_meant_is_told_from_what_was_not() -> None:
    flow = {("yes", "no"): 6, ("yes", "yes"): 1, ("yes", "3"): 1, ("1", "1"): 8, ("1", "no"): 2, ("no", "no"): 10}
    pairs = [pair for pair, count in flow.items() for _ in range(count)]
    before, after = ({str(i): pair[side] for i, pair in enumerate(pairs)} for side in (0, 1))
    found = shares(effect_of(before, after, lambda _, text: text, {"yes": "no"}))
    assert found == {
        "turned": (6 / 8, 8),
        "strayed": (1 / 8, 8),
        "off_target": (2 / 20, 20),
        "stutter": (0, 28),
        "stutter_before": (0, 28),
    }


def test_without_a_meaning_every_change_is_off_target() -> None:
    found = shares(effect_of({"a": "yes", "b": "no"}, {"a": "no", "b": "no"}, lambda _, text: text, {}))
    assert found["off_target"] == (1 / 2, 2)
    assert "turned" not in found


def test_a_destroyed_caption_has_turned_and_is_not_otherwise_unchanged() -> None:
    before = {"a": "A woman near an orange", "b": "a man's bike", "c": "a boy", "d": "a dog near an orange"}
    after = {
        "a": "an adult near an orange their orange their orange their",
        "b": "a person's bike",
        "c": "a boy",
        "d": "a dog near their orange",
    }
    assert captions(before, after) == {
        "turned": (2 / 3, 3),
        "unchanged": (1 / 3, 3),
        "strayed": (0, 3),
        "off_target": (1, 1),
        "stutter": (1 / 4, 4),
        "stutter_before": (0, 4),
    }
    found = intact(before, after, LEXICON)
    assert {name: (one.value, one.n) for name, one in found.items()} == {
        "gendered captions converted and otherwise unchanged": (1 / 3, 3),
        "gendered captions converted but broken": (1 / 3, 3),
        "other captions with another word changed": (1, 1),
    }


def test_a_stutter_stands_beside_that_of_the_unsteered_model() -> None:
    found = captions({"a": "a man", "b": "go go go"}, {"a": "their their their", "b": "go go go"})
    assert (found["stutter_before"], found["stutter"]) == ((1 / 2, 2), (1, 2))


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("A man rides a bike.", "a person rides a bike", True),
        ("a woman", "an adult", True),
        ("an officer and his dog", "a child and their dog", True),
        ("a man's hat", "a person’s hat", True),
        ("a policeman talks", "an officer talks", True),
        ("a man", "person", False),
        ("a man's hat", "a person hat", False),
        ("a man near a tree", "a person near an tree", False),
        ("a man with a dog", "a person with their dog", False),
        ("two women", "two people people", False),
        ("a man runs", "a person", False),
        ("a mango", "a person", False),
    ],
)
def test_a_caption_is_the_same_but_for_the_words_that_are_listed(before: str, after: str, same: bool) -> None:
    assert LEXICON.same(before, after) is same
    assert LEXICON.same(after, before) is same


@given(WORDS)
def test_exchanging_listed_words_leaves_a_caption_the_same_and_any_other_word_does_not(words: list[str]) -> None:
    swapped = [{"man": "adult", "her": "their"}.get(word, word) for word in words]
    assert LEXICON.same(" ".join(words), " ".join(swapped))
    for place in range(len(words) + 1):
        assert not LEXICON.same(" ".join(words), " ".join([*words[:place], "kite", *words[place:]]))


def test_any_gendered_word_may_become_any_neutral_one() -> None:
    for old, new in product(GENDERED, NEUTRAL):
        assert LEXICON.same(f"look at {old} there", f"look at {new} there"), (old, new)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=6))
def test_no_more_conversions_are_whole_than_there_are_and_the_rest_are_broken(
    pairs: list[tuple[list[str], list[str]]],
) -> None:
    before, after = ({str(i): " ".join(pair[side]) for i, pair in enumerate(pairs)} for side in (0, 1))
    turned = converted(before, after, LEXICON)["gendered captions converted"]
    whole, hurt, _ = intact(before, after, LEXICON).values()
    assert whole.value <= turned.value <= whole.value + hurt.value + 1e-12
    assert captions(before, after).get("unchanged", (0.0, 0))[0] == whole.value


def test_answers_of_one_word_have_no_pairs_of_words() -> None:
    stutter, varied = repetition(["yes", "no", "yes"])
    assert (stutter.value, varied) == (0, {"distinct-1": 2 / 3})
    assert repetition(["black black black"])[1]["distinct-2"] == 1 / 2
