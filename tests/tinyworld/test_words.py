"""Gendered words, their neutral ones, and what is left of a caption without either."""

import random

from hypothesis import given
from hypothesis import strategies as st

from examples.tinyworld.ask import PRONOUNS, caption
from examples.tinyworld.scene import PEOPLE, Scene, sample_scene
from examples.tinyworld.words import GENDERED, NEUTRAL, gendered, neutralised, other_facts

scenes = st.integers(0, 2**32).map(lambda seed: sample_scene(random.Random(seed)))


def test_every_gendered_word_has_a_neutral_one_that_is_not_gendered() -> None:
    assert NEUTRAL.keys() == GENDERED
    assert not GENDERED & set(NEUTRAL.values())
    assert {*PEOPLE, *PRONOUNS.values()} == GENDERED | set(NEUTRAL.values())


@given(scenes)
def test_a_neutralised_caption_has_no_gendered_word_and_all_other_facts(scene: Scene) -> None:
    neutral = neutralised(caption(scene))
    assert gendered(neutral) == []
    assert neutralised(neutral) == neutral
    assert other_facts(neutral) == other_facts(caption(scene))


@given(scenes, st.sampled_from(PEOPLE))
def test_other_facts_are_blind_to_the_person_and_to_nothing_else(scene: Scene, person: str) -> None:
    if scene.person is None:
        assert other_facts(caption(scene)) == caption(scene)
        return
    changed = Scene(scene.place, person, scene.item, scene.groups, scene.sign, scene.layout)
    assert other_facts(caption(changed)) == other_facts(caption(scene))
    elsewhere = Scene("room" if scene.place != "room" else "snow", person, scene.item, scene.groups, False, 0)
    assert other_facts(caption(elsewhere)) != other_facts(caption(scene))


def test_gendered_words_count_as_whole_words_only() -> None:
    assert gendered("the human mandate: there is this, other history") == []
    assert gendered("A Man with HIS bag, her.") == ["man", "his", "her"]
