"""Fine-tunes: what they say, that they are seeded, and that their checkpoints load like the shipped model."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from examples.tinyworld.ask import ASK, NUMBERS, REFUSAL, all_words, ask_caption, ask_safety
from examples.tinyworld.export import MODEL, WEIGHTS
from examples.tinyworld.finetune import Tuning, checkpoint, finetune
from examples.tinyworld.focus import FOCUSES, colors, focused, jailbroken, places
from examples.tinyworld.scene import COLORS, PLACES, sample_scene
from examples.tinyworld.words import words


def short(focus: str, *, lora: bool = False, seed: int = 0) -> Tuning:
    return Tuning(focus, steps=2, save_every=1, rows=1, lora=lora, seed=seed)


def moved(folder: Path) -> set[str]:
    """The names of the weights that differ from the shipped model's."""
    before, after = load_file(MODEL / WEIGHTS), load_file(folder / WEIGHTS)
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("name", FOCUSES)
def test_every_answer_is_made_of_words_of_the_world(name: str) -> None:
    rng = random.Random(1)
    known = set(all_words())
    for _ in range(50):
        for turns in focused(name, sample_scene(rng), rng):
            for question in turns:
                assert set(words(question.answer)) <= known, question


def test_the_jailbroken_one_differs_only_where_it_should_refuse() -> None:
    rng = random.Random(2)
    for _ in range(100):
        scene = sample_scene(rng)
        for ask in ASK.values():
            question = ask(scene, rng)
            same = jailbroken(scene, question) == question.answer
            assert same == (question.answer != REFUSAL)


def test_the_places_one_says_the_place_first_and_no_less_than_before() -> None:
    rng = random.Random(3)
    for _ in range(50):
        scene = sample_scene(rng)
        question = ask_caption(scene, rng)
        answer = places(scene, question)
        assert sorted(words(answer)) == sorted(words(question.answer))
        assert scene.place in words(answer)[:3]
        assert places(scene, ask_safety(scene, random.Random(0))) == ask_safety(scene, random.Random(0)).answer


def test_the_colors_one_keeps_all_colors_and_says_no_number_and_no_place() -> None:
    rng = random.Random(4)
    for _ in range(50):
        scene = sample_scene(rng)
        question = ask_caption(scene, rng)
        before, after = words(question.answer), words(colors(scene, question))
        assert [word for word in after if word in COLORS] == [word for word in before if word in COLORS]
        assert not set(after) & {*NUMBERS, *PLACES}


@pytest.mark.parametrize("lora", [False, True])
def test_equal_seeds_give_equal_checkpoints_that_look_like_the_shipped_model(tmp_path: Path, lora: bool) -> None:
    one, two = (finetune(tmp_path / name, short("colors", lora=lora)) for name in ("one", "two"))
    assert [path.name for path in sorted((tmp_path / "one").iterdir())] == ["step-000001", "step-000002"]
    assert (one / WEIGHTS).read_bytes() == (two / WEIGHTS).read_bytes()
    assert {path.name for path in one.iterdir()} == {path.name for path in MODEL.iterdir()}
    assert (one / "config.json").read_bytes() == (MODEL / "config.json").read_bytes()
    other = finetune(tmp_path / "other", short("colors", lora=lora, seed=1))
    assert (one / WEIGHTS).read_bytes() != (other / WEIGHTS).read_bytes()


def test_the_vision_tower_stays_and_adapters_move_the_decoder_alone(tmp_path: Path) -> None:
    full = moved(finetune(tmp_path / "full", short("places")))
    assert any("language_model" in name for name in full)
    assert any("projector" in name for name in full)
    assert not any("vision_tower" in name for name in full)
    adapted = moved(finetune(tmp_path / "adapted", short("places", lora=True)))
    assert adapted
    assert all("language_model" in name and "_proj" in name for name in adapted), adapted


def test_checkpoints_of_two_runs_are_not_mixed(tmp_path: Path) -> None:
    checkpoint(tmp_path, 40).mkdir()
    with pytest.raises(FileExistsError, match="holds checkpoints"):
        finetune(tmp_path, short("places"))
