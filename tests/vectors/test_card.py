"""The model card that is saved with each profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.vectors import ModelIdentity, Profile, SteeringVector, save_profile
from trimtab.vectors.card import model_card
from trimtab.vectors.profile import Provenance


def test_a_card_says_what_a_reader_asks_first(fine: Profile, tmp_path: Path) -> None:
    save_profile(fine, tmp_path / "p")
    card = (tmp_path / "p" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: trimtab\ntags:\n- trimtab\n")
    for said in [
        "# gender-neutral",
        "LlavaForConditionalGeneration",
        fine.digest,
        "after decoder layer 1",
        "up to 3 concepts",
        "States farther than 2.5 (euclidean)",
        "may be -1 to 1.5",
        '{"steering": {"profile": "gender-neutral", "alpha": 1.0}}',
        "None is recorded. Measure",
    ]:
        assert said in card


def test_the_dose_table_shows_the_ratio_at_the_default_and_at_the_largest_alpha(coarse: Profile) -> None:
    assert "| 0 | 5 | 10 | 0.5 | 1 |" in model_card(coarse)  # ‖v‖ 5, ‖h‖ 10, alpha 1 and 2


def test_evaluation_and_provenance_are_shown_as_they_were_recorded(model: ModelIdentity) -> None:
    provenance = Provenance(
        evaluation={"yes/no": {"before": 0.9082, "after": 0.6903}, "flips": 3},
        rule="last-prompt",
        samples={"yes": 50},
        versions={"torch": "2.13.0"},
        model_id="llava-hf/llava-1.5-7b-hf",
    )
    card = model_card(Profile.coarse("p", [SteeringVector(0, np.ones(4))], model=model, provenance=provenance))
    for line in [
        "| yes/no / after | 0.6903 |",
        "| flips | 3 |",
        "| rule | last-prompt |",
        "| samples / yes | 50 |",
        "| versions / torch | 2.13.0 |",
        'base_model: "llava-hf/llava-1.5-7b-hf"\n',
    ]:
        assert line in card


@pytest.mark.parametrize("text", ["a | b\n| c |", 'x"\n---\nlicense: mit', "a: b # c"])
def test_recorded_text_breaks_neither_the_front_matter_nor_a_table(model: ModelIdentity, text: str) -> None:
    provenance = Provenance(model_id=text, rule=text)
    card = model_card(Profile.coarse("p", [SteeringVector(0, np.ones(4))], model=model, provenance=provenance))
    front = card.split("\n---\n")[0].splitlines()
    assert len(front) == 7
    assert front[-1].startswith('base_model: "')
    row = next(line for line in card.splitlines() if line.startswith("| rule |"))
    assert row.replace("\\|", "").count("|") == 3
