"""Training: seeded, resumable, and better than nothing in a few steps."""

from pathlib import Path

import pytest
import torch

from examples.tinyworld.train import Recipe, Trainee, train

RECIPE = Recipe(steps=6, vision_steps=2, rows=2, pictures=3, vision_pictures=3, warm_up=2)


def weights(trainee: Trainee) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainee.parameters()])


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    straight = train(tmp_path / "straight", RECIPE)
    train(tmp_path / "resumed", RECIPE, stop_after=1)
    (tmp_path / "resumed" / "tokenizer.json").write_bytes((tmp_path / "straight" / "tokenizer.json").read_bytes())
    train(tmp_path / "resumed", RECIPE, stop_after=4)
    resumed = train(tmp_path / "resumed", RECIPE)
    assert torch.equal(weights(straight), weights(resumed))


def test_the_tokenizer_is_kept_on_resume(tmp_path: Path) -> None:
    train(tmp_path, RECIPE, stop_after=1)
    before = (tmp_path / "tokenizer.json").read_bytes()
    train(tmp_path, RECIPE, stop_after=2)
    assert (tmp_path / "tokenizer.json").read_bytes() == before


def test_no_minutes_left_stops_after_one_step_and_keeps_it(tmp_path: Path) -> None:
    train(tmp_path, RECIPE, minutes=0)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 1


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    one = train(tmp_path / "one", RECIPE, stop_after=1)
    two = train(tmp_path / "two", Recipe(**(vars(RECIPE) | {"seed": 1})), stop_after=1)
    assert not torch.equal(weights(one), weights(two))


def test_the_rate_warms_up_twice_and_falls_to_its_last_value() -> None:
    recipe = Recipe(steps=100, vision_steps=40, warm_up=10)
    assert recipe.rate_at(0) == pytest.approx(recipe.rate / 10)
    assert recipe.rate_at(39) == recipe.rate
    assert recipe.rate_at(40) == pytest.approx(recipe.rate / 10)
    assert recipe.rate_at(50) == pytest.approx(recipe.rate)
    falling = [recipe.rate_at(step) for step in range(50, 101)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(recipe.last_rate)
