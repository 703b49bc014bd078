"""What the studies' figures stand on, apart from the server that answers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from examples.tinyworld.ask import Sample, Type
from examples.tinyworld.demo.client import Client, How
from examples.tinyworld.export import MODEL as TINYWORLD
from examples.tinyworld.study import gender, style, toward, words
from examples.tinyworld.study.exam import Exam, Server, made_of
from examples.tinyworld.study.figures import added, became, diversity, spaced
from examples.tinyworld.study.trial import Variant, decided
from examples.tinyworld.study.words import judge_words
from trimtab.vectors import ModelIdentity, Profile, SteeringVector

MODEL = ModelIdentity(architecture="Made", hidden_size=4, num_layers=6)
VARIANT = Variant("coarse", "turn", 5)
JUDGE = judge_words("yes", "no")


@dataclass
class Oracle:
    """Stands where the server is: says what a table says, and remembers what it was asked."""

    said: dict[tuple[str, str | None, float | None], list[str]]
    asked: list[tuple[str, str | None, float | None]] = field(default_factory=list)

    def ask(self, folder: Path, samples: Sequence[Sample], how: How, *, label: str = "") -> list[str]:
        key = (folder.name, how.profile, how.alpha)
        self.asked.append(key)
        return self.said[key][: len(samples)]


def profile(size: float = 1.0) -> Profile:
    return Profile.coarse("turn", [SteeringVector(5, size * np.ones(4))], model=MODEL)


def exam(
    oracle: Oracle,
    split: Any,
    kept: Path,
    count: int = 4,
    size: float = 1.0,
    made: dict[str, str] | None = None,
    picture: str = "a picture",
    kind: Type = "yes/no",
) -> Exam:
    made = {"op": "1"} if made is None else made
    server = Server(cast("Client", oracle), {"turn": profile(size)}, made, kept)
    samples = [Sample(f"{i}", f"{i}.png", "is it so?", "yes", kind) for i in range(count)]
    folder = kept / picture / split
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        (folder / sample.image).write_bytes(f"{split}: {picture}".encode())
    return Exam(server, split, folder, samples)


def test_the_strength_is_chosen_on_dev_and_reported_on_test(tmp_path: Path) -> None:
    plain = ["yes", "yes", "red", "two"]
    oracle = Oracle(
        {
            ("dev", None, None): plain,
            ("dev", "turn", 1.0): ["no", "yes", "red", "two"],
            ("dev", "turn", 2.0): ["no", "no", "no", "two"],
            ("test", None, None): plain,
            ("test", "turn", 1.0): ["yes", "yes", "no", "no"],
        }
    )
    found = decided(exam(oracle, "dev", tmp_path), exam(oracle, "test", tmp_path), [VARIANT], (1.0, 2.0), JUDGE)
    assert found.setting.strength == 1.0
    assert ("test", "turn", 2.0) not in oracle.asked
    assert (found.test.gained.value, found.test.collateral.value) == (0.0, 1.0)
    assert [(point.split, point.alpha, point.chosen) for point in found.points] == [
        ("dev", 1.0, True),
        ("dev", 2.0, False),
        ("test", 1.0, True),
    ]


def test_an_answer_that_was_had_is_not_asked_for_again_but_another_vectors_is(tmp_path: Path) -> None:
    oracle = Oracle({("dev", "turn", 1.0): ["no"] * 4})
    assert exam(oracle, "dev", tmp_path).steered("turn", 1.0) == ["no"] * 4
    assert exam(oracle, "dev", tmp_path).steered("turn", 1.0) == ["no"] * 4
    assert len(oracle.asked) == 1
    exam(oracle, "dev", tmp_path, size=2.0).steered("turn", 1.0)
    exam(oracle, "dev", tmp_path, count=3).steered("turn", 1.0)
    assert len(oracle.asked) == 3
    exam(oracle, "dev", tmp_path, made={"op": "2"}).steered("turn", 1.0)
    exam(oracle, "dev", tmp_path, picture="another picture").steered("turn", 1.0)
    exam(oracle, "dev", tmp_path, kind="caption").steered("turn", 1.0)  # captions are cut later
    assert len(oracle.asked) == 6


def test_what_made_a_server_names_all_that_decides_its_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(TINYWORLD, tmp_path / "model")
    before = made_of(tmp_path / "model")
    assert before == made_of(TINYWORLD)
    assert all(before[name] for name in ("weights", "vllm", "op", "dtype"))
    (tmp_path / "model" / "chat_template.jinja").write_text("another")
    monkeypatch.setenv("VLLM_SOMETHING", "else")
    monkeypatch.setattr("examples.tinyworld.study.exam.OP_VERSION", -1)
    changed = {name for name, value in made_of(tmp_path / "model").items() if value != before[name]}
    assert changed == {"files", "environment", "op"}


def test_published_rows_fill_the_table_that_they_stand_in() -> None:
    assert {len(row) for row in words.PUBLISHED} == {len(words.COLUMNS)}


def test_words_strung_together_by_a_steering_count_as_words() -> None:
    assert spaced("sorrysorry, that is not safe.") == "sorry sorry that is not safe"
    assert spaced("nobody") == "nobody"
    assert diversity(["blackblackblack", "red"]) == [0.5, 0.5, 50.0]


def test_exact_and_substring_counts_stand_side_by_side(tmp_path: Path) -> None:
    one = exam(Oracle({("dev", None, None): ["yes", "yes", "yes", "red"]}), "dev", tmp_path)
    assert added(one, ["no", "nono", "snow", "red"], ["no"]) == [1, 3]
    flow = {(old, new): count for old, new, count in became("t", "s", one, ["no", "no", "yes", "red"]).flow}
    assert flow == {("yes", "no"): 2, ("yes", "yes"): 1, ("red", "red"): 1}


@pytest.mark.parametrize(
    ("caption", "gained", "collateral"),
    [
        ("a man near two red balls in the snow.", 0, 0),
        ("in the snow, a man near two red balls in the snow.", 1, 0),
        ("in the snow in the snow in the snow in the snow.", 1, 1),
        ("a man near two red balls in the snow snowsnowsnow.", 1, 1),
        ("a man near two blue balls in the snow.", 0, 1),
    ],
)
def test_a_style_gains_by_more_of_its_words_and_costs_what_it_drives_out(
    caption: str, gained: int, collateral: int, tmp_path: Path
) -> None:
    one = exam(Oracle({("dev", None, None): ["a man near two red balls in the snow."]}), "dev", tmp_path, count=1)
    found = style.judge_style(frozenset({"snow", "beach"}))(one, [caption])
    assert [share.value for share in found] == [gained, collateral]


@pytest.mark.parametrize(
    ("caption", "gained", "collateral"),
    [
        ("a person with their red bag.", 1, 0),
        ("a person with her red bag.", 0, 0),
        ("a red bag.", 0, 1),
        ("a person with their blue bag.", 1, 1),
    ],
)
def test_a_caption_is_converted_when_a_neutral_word_stands_for_the_gendered_one(
    caption: str, gained: int, collateral: int, tmp_path: Path
) -> None:
    one = exam(Oracle({("dev", None, None): ["a woman with her red bag."]}), "dev", tmp_path, count=1)
    assert [share.value for share in gender.judge_gender(one, [caption])] == [gained, collateral]


@pytest.mark.parametrize(
    ("answers", "first", "whole", "changed"),
    [
        (["bag", "ball", "yes"], 0, 0, 0),
        (["red bag", "ball", "yes"], 0.5, 0.5, 0),
        (["red red", "blueblue", "no"], 1, 0, 1),
        (["blue", "red", "yes"], 0, 0, 0),
    ],
)
def test_toward_a_fine_tune_counts_its_words_where_it_changed_something(
    answers: list[str], first: float, whole: float, changed: float, tmp_path: Path
) -> None:
    one = exam(Oracle({("dev", None, None): ["bag", "ball", "yes"]}), "dev", tmp_path, count=3)
    said = {"0": ["red", "bag"], "1": ["blue", "ball"], "2": ["yes"]}
    assert [share.value for share in toward.shares(one, answers, said)] == [first, whole, changed]
