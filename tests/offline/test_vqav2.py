"""VQAv2's normalisation and both accuracies, against what the official evaluator is known to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.offline.errors import DataError
from trimtab.offline.evaluation.datasets.vqav2 import accuracy, official_accuracy, read_vqav2
from trimtab.offline.evaluation.datasets.vqav2_text import normalised

WORDS = st.lists(st.sampled_from(["yes", "no", "red", "umbrella", "3", "2.5", "dog"]), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("said", "compared"),
    [
        ("Yes.", "yes"),
        ("a red umbrella", "red umbrella"),
        ("The Dog", "dog"),
        ("two", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("im", "im"),
        ("1,000", "1000"),
        ("black and white, mostly", "black and white mostly"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("2.5", "2.5"),
        ("5.", "5"),
        ("no\nway\tout ", "no way out"),
        ("t-shirt", "t shirt"),
        ("10:30", "10:30"),
        ("it's", "it's"),
        ("eleven", "eleven"),
        ("?", ""),
    ],
)
def test_answers_are_compared_as_the_official_evaluator_compares_them(said: str, compared: str) -> None:
    assert normalised(said) == compared


@given(WORDS)
def test_plain_words_are_left_alone(words: list[str]) -> None:
    assert normalised(" ".join(words)) == " ".join(words)


@given(st.text())
def test_what_is_normalised_has_no_articles_no_capitals_and_single_spaces(text: str) -> None:
    said = normalised(text)
    assert said == said.lower()
    assert not {"a", "an", "the"} & set(said.split(" "))
    assert not re.search(r"^ |  | $", said)


@given(WORDS, st.sampled_from(["{}.", " {}\n", "the {}", "{}!", "{}?"]))
def test_dressing_does_not_change_an_answer(words: list[str], dress: str) -> None:
    assert normalised(dress.format(" ".join(words))) == " ".join(words)


@pytest.mark.parametrize(("matching", "official"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)])
def test_the_official_accuracy_leaves_each_annotator_out_in_turn(matching: int, official: float) -> None:
    given = ("red",) * matching + tuple(f"other{n}" for n in range(10 - matching))
    assert official_accuracy("red", given) == pytest.approx(official)
    assert accuracy("red", given) == pytest.approx(min(1, matching / 3))


def test_annotators_who_all_agree_are_compared_to_the_letter() -> None:
    assert official_accuracy("Yes", ("yes",) * 10) == 0
    assert official_accuracy("Yes", ("yes",) * 9 + ("no",)) == 1
    assert accuracy("Yes", ("yes",) * 10) == 1


@given(st.lists(st.sampled_from(["Red", "red.", "the red", "blue", "2", "two"]), min_size=2, max_size=10), WORDS)
def test_the_official_accuracy_is_never_above_methods(truths: list[str], words: list[str]) -> None:
    for said in ("red", "2", " ".join(words)):
        assert 0 <= official_accuracy(said, tuple(truths)) <= accuracy(said, tuple(truths)) + 1e-12 <= 1 + 1e-12


GOLDEN = [json.loads(line) for line in (Path(__file__).parent / "vqav2_golden.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['answer']!r} of {len(set(case['given']))}")
def test_figures_are_those_that_the_official_evaluator_gave(case: dict[str, Any], tmp_path: Path) -> None:
    """vqav2_golden.jsonl: figures of the newest public VQAEval, computed once."""
    assert official_accuracy(case["answer"], tuple(case["given"])) == pytest.approx(case["accuracy"], abs=1e-12)
    told = [{"answer_id": n, "answer": said} for n, said in enumerate(case["given"])]
    annotations = {"annotations": [{"question_id": 7, "answer_type": "other", "answers": told}]}
    scores = read_vqav2(write(tmp_path, QUESTIONS, annotations)).score({"7": case["answer"]})
    assert scores.measured["official, all"].value == pytest.approx(case["accuracy"], abs=1e-12)


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_who_says_what_all_annotators_say_is_right(said: str) -> None:
    assert official_accuracy(said, (said,) * 10) == 1


def test_answers_that_only_a_capital_or_a_period_makes_wrong_are_counted(tmp_path: Path) -> None:
    annotations = {"annotations": [{"question_id": 7, "answer_type": "yes/no", "answers": [{"answer": "yes"}] * 10}]}
    found = read_vqav2(write(tmp_path, QUESTIONS, annotations))
    scores = found.score({"7": "Yes."})
    assert scores.measured["official, all"].value == 0
    assert scores.measured["official, plain, all"].value == 1
    assert json.loads(scores.submission["vqav2_results_plain.json"]) == [{"question_id": 7, "answer": "yes"}]
    assert "1 of 1 answers lose accuracy only by" in scores.warnings[0]
    assert not found.score({"7": "yes"}).warnings


def write(folder: Path, questions: object, annotations: object) -> Path:
    (folder / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps(questions))
    (folder / "v2_mscoco_val2014_annotations.json").write_text(json.dumps(annotations))
    return folder


QUESTIONS = {"data_subtype": "val2014", "questions": [{"question_id": 7, "image_id": 42, "question": "what?"}]}
ANNOTATIONS = {"annotations": [{"question_id": 7, "answer_type": "other", "answers": [{"answer": "A cat."}] * 10}]}


def test_the_official_files_are_read_and_the_results_have_the_official_form(tmp_path: Path) -> None:
    found = read_vqav2(write(tmp_path, QUESTIONS, ANNOTATIONS))
    [sample] = found.samples
    assert (sample.id, sample.question, sample.type) == ("7", "what?", "other")
    assert sample.image == tmp_path / "val2014" / "COCO_val2014_000000000042.jpg"
    submission = found.score({"7": "The cat."}).submission["vqav2_results.json"]
    assert json.loads(submission) == [{"question_id": 7, "answer": "The cat."}]


def test_a_question_without_annotation_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'7'"):
        read_vqav2(write(tmp_path, QUESTIONS, {"annotations": []}))


def test_the_digest_is_that_of_both_files(tmp_path: Path) -> None:
    first = read_vqav2(write(tmp_path, QUESTIONS, ANNOTATIONS)).digest
    other = {"annotations": [{**ANNOTATIONS["annotations"][0], "answer_type": "number"}]}
    assert read_vqav2(write(tmp_path, QUESTIONS, other)).digest != first
