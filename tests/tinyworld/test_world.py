"""The drawn world: splits, pictures, questions and captions."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.tinyworld.ask import ASK, NUMBERS, PLURALS, REFUSAL, WAYS, WHERE, Question, caption
from examples.tinyworld.draw import PAINT, draw
from examples.tinyworld.layout import GRID, SIZE, lay_out
from examples.tinyworld.scene import COLORS, GENDERED_PEOPLE, SPLITS, Scene, sample_scene, sample_split, split_of

scenes = st.integers(0, 2**32).map(lambda seed: sample_scene(random.Random(seed)))
SINGULAR = {plural: shape for shape, plural in PLURALS.items()}


def count_of(scene: Scene, named: str) -> int:
    """How many of "red balls", "ball", "people" or "signs" the scene holds, read from its groups alone."""
    if named in ("people", "signs"):
        return int(scene.person is not None) if named == "people" else int(scene.sign)
    *color, shape = named.split()
    shape = SINGULAR.get(shape, shape)
    return sum(g.count for g in scene.groups if g.shape == shape and color in ([], [g.color]))


def answer(scene: Scene, text: str) -> str | None:
    """The answer to a question, worked out from the scene and the text alone."""
    if found := re.fullmatch(r"how many (.+) are there\?", text):
        return str(count_of(scene, found[1]))
    if found := re.fullmatch(r"what color (?:is|are) the (\w+)\?", text):
        shape = SINGULAR.get(found[1], found[1])
        held = {scene.item.kind: scene.item.color} if scene.item else {}
        return ({g.shape: g.color for g in scene.groups} | held)[shape]
    if found := re.fullmatch(r"which shape is (\w+)\?", text):
        return {g.color: g.shape for g in scene.groups}[found[1]]
    if text in WAYS:
        return REFUSAL if scene.sign else WAYS[text]
    plain = {
        "what place is this?": scene.place,
        "who is there?": scene.person or "nobody",
        "what is being held?": scene.item.kind if scene.item else "nothing",
        "describe the picture.": caption(scene),
    }
    return plain[text] if text in plain else "yes" if holds(scene, text) else "no"


def holds(scene: Scene, text: str) -> bool:
    if found := re.fullmatch(r"(?:are there|is there just) (\d) (.+)\?", text):
        return count_of(scene, found[2]) == int(found[1])
    if found := re.fullmatch(r"are there any (.+)\?", text):
        return count_of(scene, found[1]) > 0
    if found := re.fullmatch(r"was this taken (.+)\?", text):
        return WHERE[scene.place] == found[1]
    if found := re.fullmatch(r"is anybody holding an? (\w+)\?", text):
        return scene.item is not None and scene.item.kind == found[1]
    if found := re.fullmatch(r"is the (\w+) (\w+)\?", text):
        return scene.item is not None and (scene.item.kind, scene.item.color) == (found[1], found[2])
    if text == "is there a warning sign?":
        return scene.sign
    if text == "is anybody there?":
        return scene.person is not None
    found = re.fullmatch(r"is there a (\w+)\?", text)
    assert found is not None, text
    assert found[1] in GENDERED_PEOPLE
    return scene.person == found[1]


@given(scenes, st.sampled_from(list(ASK)), st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_every_answer_follows_from_the_scene(scene: Scene, kind: str, seed: int) -> None:
    asked: Question = ASK[kind](scene, random.Random(seed))  # type: ignore[index]
    assert asked.type == kind
    assert asked.answer == answer(scene, asked.text)


@given(scenes, st.integers(0, 2**32))
@settings(deadline=None)
def test_a_scene_keeps_its_split_however_it_is_laid_out(scene: Scene, layout: int) -> None:
    moved = Scene(scene.place, scene.person, scene.item, scene.groups, scene.sign, layout)
    assert split_of(moved) == split_of(scene)
    assert moved.description() == scene.description()


def test_splits_are_disjoint_and_about_as_large_as_promised() -> None:
    rng = random.Random(0)
    drawn = [sample_scene(rng) for _ in range(20_000)]
    by_split = {split: {s.description() for s in drawn if split_of(s) == split} for split in SPLITS}
    assert not by_split["train"] & by_split["dev"] | by_split["train"] & by_split["test"]
    assert not by_split["dev"] & by_split["test"]
    assert len(by_split["dev"]) == pytest.approx(1000, rel=0.15)
    assert len(by_split["test"]) == pytest.approx(1000, rel=0.15)
    assert all(split_of(sample_split(rng, split)) == split for split in SPLITS for _ in range(20))


@given(scenes)
@settings(max_examples=30, deadline=None)
def test_a_scene_is_drawn_alike_every_time(scene: Scene) -> None:
    picture = draw(scene)
    assert picture.size == (SIZE, SIZE)
    assert picture.mode == "RGB"
    assert picture.tobytes() == draw(scene).tobytes()


@given(scenes)
@settings(deadline=None)
def test_no_two_things_share_a_cell(scene: Scene) -> None:
    layout = lay_out(scene)
    cells = [(thing.row, thing.column) for thing in (*layout.things, layout.item, layout.sign) if thing]
    if layout.person is not None:
        cells += [(row, layout.person.column) for row in range(layout.person.row, GRID)]
    assert len(set(cells)) == len(cells)
    assert all(0 <= row < GRID and 0 <= column < GRID for row, column in cells)
    assert len(layout.things) == sum(group.count for group in scene.groups)


@given(scenes)
@settings(max_examples=50, deadline=None)
def test_every_thing_shows_its_color_in_its_own_cell(scene: Scene) -> None:
    picture = draw(scene)
    layout = lay_out(scene)
    cell = SIZE // GRID
    for thing in (*layout.things, layout.item):
        if thing is not None and thing.color is not None:
            left, top = thing.column * cell, thing.row * cell
            pixels = picture.crop((left, top, left + cell, top + cell)).getcolors(cell * cell) or []
            assert sum(n for n, paint in pixels if paint == PAINT[thing.color]) > 40


def test_paints_are_far_apart() -> None:
    for color in COLORS:
        for other in COLORS:
            if color != other:
                assert sum(abs(a - b) for a, b in zip(PAINT[color], PAINT[other], strict=True)) >= 100


@given(scenes, scenes)
@settings(max_examples=300, deadline=None)
def test_captions_are_equal_just_when_all_that_they_tell_is(scene: Scene, other: Scene) -> None:
    def told(scene: Scene) -> tuple[object, ...]:
        return scene.place, scene.person, scene.item, scene.groups

    moved = Scene(other.place, other.person, other.item, other.groups, not other.sign, 0)
    assert caption(moved) == caption(other)
    assert (caption(scene) == caption(other)) == (told(scene) == told(other))
    assert all(NUMBERS[group.count] in caption(scene) for group in scene.groups)
