"""The dose of a profile has a word for it, by its largest layer."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.vectors import AlphaRange, ModelIdentity, Profile, SteeringVector
from trimtab.vectors.card import model_card
from trimtab.vectors.dose import largest_dose, said
from trimtab.vectors.manifest import Positions


@pytest.mark.parametrize(
    ("dose", "sentence"),
    [
        (0.0, "0 times the typical state: slight"),
        (0.0999, "0.1 times the typical state: slight"),
        (0.1, "0.1 times the typical state: moderate"),
        (0.4, "0.4 times the typical state: considerable"),
        (0.99, "0.99 times the typical state: considerable"),
        (1.0, "1 times the typical state: large"),
        (2.34, "2.3 times the typical state: large"),
        (None, "unknown"),
    ],
)
def test_a_dose_is_said_in_times_and_a_word(dose: float | None, sentence: str) -> None:
    assert said(dose) == sentence


def test_the_dose_is_that_of_the_layer_where_it_is_the_largest(model: ModelIdentity) -> None:
    vectors = [SteeringVector(0, 3 * np.eye(4)[0]), SteeringVector(1, 4 * np.eye(4)[0])]
    alpha = AlphaRange(default=2.0, max=4.0)
    profile = Profile.coarse("p", vectors, model=model, alpha=alpha, hidden_norms={0: 10, 1: 20})
    assert largest_dose(profile) == pytest.approx(0.6)
    assert largest_dose(profile, -4.0) == pytest.approx(1.2)
    assert "At the default, 0.6 times the typical state: considerable." in model_card(profile)
    assert largest_dose(Profile.coarse("p", vectors, model=model)) is None


def test_a_card_says_what_is_steered_and_what_of_it_is_not_meant(model: ModelIdentity) -> None:
    rows = np.eye(2, 4)
    layers = {0: (rows, rows), 1: (rows, rows)}
    profile = Profile.fine("p", layers, model=model, touched={0: 0.125, 1: 0.5}, unmeant={0: 0.0213})
    card = model_card(profile)
    assert (
        "At layer 0 it is expected to steer 12.5% of the positions of answers; of those that it is not meant for, 2.1%."
        in card
    )
    assert "At layer 1 it is expected to steer 50.0% of the positions of answers." in card


@pytest.mark.parametrize(
    ("positions", "where"), [("answer", "the positions that predict the answer"), ("image", "the positions of images")]
)
def test_a_card_says_where_it_was_not_measured_what_is_steered(
    model: ModelIdentity, positions: Positions, where: str
) -> None:
    rows = np.eye(2, 4)
    profile = Profile.fine("p", {0: (rows, rows), 1: (rows, rows)}, model=model, positions=positions, touched={0: 0.5})
    card = model_card(profile)
    assert f"At layer 1 it was not measured what share of {where} it will steer." in card
    assert "At layer 0 it was not" not in card
    assert "share of the prompt" not in card


def test_a_card_of_all_positions_says_that_the_prompt_was_not_measured(model: ModelIdentity) -> None:
    rows = np.eye(2, 4)
    profile = Profile.fine("p", {0: (rows, rows)}, model=model, positions="all", touched={0: 0.5})
    assert "50.0% of the positions of answers" in model_card(profile)
    assert "It was not measured what share of the prompt it will steer." in model_card(profile)
    coarse = Profile.coarse("p", [SteeringVector(0, np.ones(4))], model=model, positions="all")
    assert "measured what share" not in model_card(coarse)
