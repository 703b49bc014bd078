"""What a tuning chooses on dev and reports on test, from answers that are given: no model and no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from trimtab.offline.findings import NO_OTHERS, Effect, Finding, SweepFound, TableFound
from trimtab.offline.report import Pictures, render
from trimtab.offline.states.samples import Sample
from trimtab.offline.statistics import over_draws, rate
from trimtab.offline.tuning import Asking, Exam, Outcome, tried
from trimtab.offline.tuning.candidates import Made
from trimtab.offline.tuning.config import Steering
from trimtab.offline.tuning.found import findings, with_evaluation
from trimtab.offline.tuning.goals import judge_of
from trimtab.offline.tuning.run import doubts
from trimtab.vectors import AlphaRange, ModelIdentity, Profile, SteeringVector
from trimtab.vectors.profile import CoarseLayer

MODEL = ModelIdentity(architecture="Made", hidden_size=4, num_layers=4, fingerprint="sampled-sha256:" + "0" * 64)


@dataclass(frozen=True)
class Given(Exam):
    """An exam whose answers are given: by the name of the profile, "" for the unsteered ones; others stay unsteered."""

    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def _ask(self, profile: Profile | None, alpha: float | None, bias: dict[str, float] | None) -> list[str]:
        return list(self.answers.get(profile.name if profile else "", self.answers[""]))


def exam(part: str, **answers: str) -> Given:
    """Answers are given as words in a row; names have _ for -."""
    given = {name.removeprefix("plain").replace("_", "-"): words.split() for name, words in answers.items()}
    samples = [Sample(f"{part}{i}", "is it so?") for i in range(len(given[""]))]
    return Given(cast(Asking, None), "dev" if part == "dev" else "test", samples, given)


def candidate(name: str = "c") -> Made:
    vector = SteeringVector(3, np.array([3.0, 4.0, 0.0, 0.0], np.float32))
    alpha = AlphaRange(default=1.0, min=0.0, max=4.0)
    profile = Profile.coarse(name, [vector], model=MODEL, alpha=alpha, hidden_norms={3: 10.0})
    return Made("coarse", "coarse", 3, profile, (1.0,))


def outcome_of(steering: Mapping[str, object], dev: Given, test: Given, nulls: int = 3) -> Outcome:
    judge = judge_of(Steering.model_validate(steering), [])
    return tried([candidate()], judge, dev, test, 0.05, nulls=nulls)


def written(outcome: Outcome, test: Given, run: Path) -> dict[str, Finding]:
    """What a tuning writes of one steering, by the kind of finding."""
    found = findings("t", {"s": outcome}, {"s": test.samples}, most_collateral=0.05, run=run, command="")
    return {f"{one.kind}-{name}": one for name, one in found}


CONCENTRATED = {"map": {"white": "black"}, "goal": {"kind": "concentrated"}}
YES_TO_NO = {"map": {"yes": "no"}}


def test_the_word_of_a_concentrated_gain_is_picked_on_dev_and_kept_on_test() -> None:
    dev = exam("dev", plain="white white white red", c="blue blue blue blue")
    test = exam("test", plain="white white white red", c="green green green blue", c_null="green green green green")
    outcome = outcome_of(CONCENTRATED, dev, test)
    chosen, null = outcome.rows[1], outcome.rows[2]
    assert (chosen.what, chosen.verdict.extras["word"]) == ("chosen", "blue")
    assert chosen.verdict.gained.value == 0.25, "green gains more on test, which may decide nothing"
    assert chosen.verdict.effect.strayed is not None
    assert chosen.verdict.effect.strayed.value == 0.75
    assert (null.what, null.verdict.gained.value) == ("null", 0.0), "the control is judged by the word of its setting"


def test_where_no_answer_should_stay_nothing_is_chosen_and_nothing_reads_as_zero(tmp_path: Path) -> None:
    dev, test = exam("dev", plain="yes yes yes", c="no no no"), exam("test", plain="yes yes", c="no no")
    outcome = outcome_of(YES_TO_NO, dev, test)
    assert outcome.chosen is None
    assert [row.what for row in outcome.rows[1:]] == ["not chosen", "null"]
    (doubt,) = doubts(outcome, 0.05)
    assert "collateral cannot be measured" in doubt
    assert "add dev samples" in doubt

    found = written(outcome, test, tmp_path)
    for name in ("table-t", "table-t-dev"):
        table = found[name]
        assert isinstance(table, TableFound)
        assert {row[table.columns.index("off target %")] for row in table.rows} == {NO_OTHERS}
    sweep = found["sweep-s"]
    assert isinstance(sweep, SweepFound)
    assert {one.collateral for one in sweep.points} == {None}
    page = render("r", {"sweep-s": sweep}, Pictures(tmp_path))
    assert page.count(NO_OTHERS) >= 4  # in the comparison; the setting on dev and on test, in two tables
    assert "0.0 % <small>0.0 to 100.0" not in page


def test_dev_chooses_by_its_own_other_answers_also_where_test_has_none() -> None:
    dev = exam("dev", plain="yes yes red", c="no no red")
    outcome = outcome_of(YES_TO_NO, dev, exam("test", plain="yes yes", c="no yes"))
    assert outcome.row is not None
    assert with_evaluation(outcome, "s", 0.05).manifest.provenance.evaluation["tuning"] is not None
    assert outcome.row.verdict.collateral is None
    said = doubts(outcome, 0.05)
    assert [one.split(" of dev")[0] for one in said] == ["only 2 answers", "only 1 answers"]


def test_a_null_control_is_the_mean_of_its_draws_and_its_interval_holds_each_of_them() -> None:
    dev = exam("dev", plain="yes yes yes yes red", c="no no no no red")
    test = exam(
        "test",
        plain="yes yes yes yes red",
        c="no no no no red",
        c_null="no yes yes yes red",
        c_null2="no no yes yes red",
    )
    null = outcome_of(YES_TO_NO, dev, test).rows[2]
    gained = null.verdict.gained
    assert len(null.draws) == 3
    assert gained.value == pytest.approx((0.25 + 0 + 0.5) / 3)
    assert (gained.low, gained.high) == (rate(0, 4).low, rate(2, 4).high)
    assert (gained.n, gained.how) == (4, "draws")
    assert null.verdict.extras["Δ original"] == "-1 | 0 | -2"


def test_draws_are_other_directions_of_the_same_norm_under_other_names() -> None:
    profiles = candidate("yes-to-no-coarse-3").nulls(3)
    tensors = [one.tensors[3] for one in profiles]
    assert len({one.name for one in profiles}) == 3
    assert len({one.digest for one in profiles}) == 3
    assert len({one.vector.tobytes() for one in tensors if isinstance(one, CoarseLayer)}) == 3
    assert {round(one.manifest.norms[3].vector, 5) for one in profiles} == {5.0}


def test_a_single_draw_is_itself() -> None:
    assert over_draws([rate(3, 9)]) == rate(3, 9)


def test_controls_stand_in_the_comparison_and_are_marked(tmp_path: Path) -> None:
    dev, test = (exam(part, plain="yes red", c="no red") for part in ("dev", "test"))
    sweep = written(outcome_of(YES_TO_NO, dev, test), test, tmp_path)["sweep-s"]
    assert isinstance(sweep, SweepFound)
    assert [one.what for one in sweep.controls] == ["3 draws of random vectors for coarse, layer 3, α = 1"]
    page = render("r", {"sweep-s": sweep}, Pictures(tmp_path))
    row = page.split("3 draws of random vectors for coarse")[1].split("</tr>")[0]
    assert "<td>control</td>" in row
    assert "0.0 %" in row
    plain = render("r", {"sweep-s": sweep.model_copy(update={"controls": ()})}, Pictures(tmp_path))
    assert "<td>steering</td>" not in plain, "the column is there where it tells something apart"


def test_an_effect_without_other_answers_says_so_and_one_of_nothing_does_not() -> None:
    assert Effect(turned=rate(1, 2)).no_others
    assert not Effect(turned=rate(1, 2), off_target=rate(0, 2)).no_others
    assert not Effect().no_others
