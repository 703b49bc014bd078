from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.offline.test_words import TOKENIZER, answer
from trimtab.offline.errors import SettingError
from trimtab.offline.states import LastPrompt, MeanGenerated, Predicts
from trimtab.offline.states.rules import Rule, parse


def spell(word: str) -> Iterator[list[int]]:
    for text in (word, " " + word):
        yield TOKENIZER.encode(text, add_special_tokens=False)


def states(rule: Rule, text: str) -> list[tuple[tuple[int, ...], str, str]]:
    return [
        (one.positions, one.label, "" if one.token < 0 else str(TOKENIZER.decode([one.token])))
        for one in rule.states(answer(text), spell)
    ]


def test_the_last_prompt_position_is_labelled_by_the_whole_first_word() -> None:
    assert states(LastPrompt(), "snow man") == [((0,), "snow", "snow")]
    assert states(LastPrompt(), " people, yes") == [((0,), "people", " pe")]


def test_a_state_is_kept_where_its_word_is_predicted() -> None:
    # tokens: " man", " is", " no", " man"
    assert states(Predicts(("man",)), " man is no man") == [((0,), "man", " man"), ((3,), "man", " man")]


def test_every_word_of_an_answer_has_its_row_under_the_star() -> None:
    assert states(Predicts(), " man is no") == [((0,), "man", " man"), ((1,), "is", " is"), ((2,), "no", " no")]


def test_words_that_share_their_first_token_are_taken_at_the_first_that_tells_them_apart() -> None:
    text = "person is no people"
    assert states(Predicts(("person", "people")), text) == [((1,), "person", "rson"), ((5,), "people", "ople")]
    assert states(Predicts(("person", "man")), text) == [((0,), "person", "pe")]


def test_the_mean_runs_over_the_answers_own_positions() -> None:
    assert states(MeanGenerated(), " man is no") == [((1, 2, 3), "", "")]


@pytest.mark.parametrize("text", ["", "\n", " …", "?"])
def test_the_last_prompt_position_has_its_row_also_where_no_word_follows(text: str) -> None:
    ((positions, label, _),) = states(LastPrompt(), text)
    assert (positions, label) == ((0,), "")


@pytest.mark.parametrize("rule", [Predicts(), Predicts(("no",)), MeanGenerated()])
def test_an_empty_answer_has_no_row(rule: Rule) -> None:
    assert states(rule, "") == []


@given(st.one_of(st.just(None), st.lists(st.sampled_from(["man", "ice cream", "3", "don't"]), min_size=1)))
def test_a_rule_is_read_back_from_its_text(words: list[str] | None) -> None:
    rule = Predicts(None if words is None else tuple(words))
    assert parse(str(rule)) == rule
    assert parse(str(LastPrompt())) == LastPrompt()
    assert parse(str(MeanGenerated())) == MeanGenerated()


@pytest.mark.parametrize("text", ["", "last", "predicts", "predicts:", "predicts:,", "predicts:!", "mean-generated:3"])
def test_an_unknown_rule_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(SettingError, match="predicts"):
        parse(text)


def test_generation_may_stop_as_soon_as_the_first_word_can_grow_no_more() -> None:
    rule = LastPrompt()
    assert not rule.satisfied("")
    assert not rule.satisfied(" pe")
    assert not rule.satisfied("don'")
    assert not rule.satisfied("don�")
    assert rule.satisfied("don' ")
    assert rule.satisfied("yes.")
    assert not Predicts().satisfied("yes. no. ")
