"""VQAv2: its questions, annotations and results files, and both of its accuracies.

    DATA/*questions.json     v2_OpenEnded_mscoco_val2014_questions.json, or one in its form
    DATA/*annotations.json   v2_mscoco_val2014_annotations.json
    COCO_val2014_%012d.jpg   in the folder of pictures, in DATA/val2014, DATA/images or DATA

`official` is what the official evaluator gives for the answers as they came: for each annotator, the share
min(1, n / 3) of those who agree among the *others*, averaged. Where all annotators say the same, it compares to the
letter, so that "Yes." is wrong where all say "yes"; else it normalises both sides. `official, plain` is the same for
answers in small letters without a final period. The paper uses `min(1, n/3)`, both sides normalised.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...findings import Measured
from ...states.samples import Sample
from ...statistics import mean
from ..benchmark import Answers, Scores, digest_of, one_file, picture, read_json
from .vqav2_text import normalised, one_line, plain

__all__ = ["Vqav2", "accuracy", "official_accuracy", "read_vqav2"]

_ENOUGH = 3
RESULTS, PLAIN_RESULTS = "vqav2_results.json", "vqav2_results_plain.json"


def accuracy(answer: str, given: tuple[str, ...]) -> float:
    """min(1, matching annotators / 3), both sides normalised (docs/method.md §5)."""
    said = normalised(answer)
    return min(1.0, sum(normalised(one) == said for one in given) / _ENOUGH)


def official_accuracy(answer: str, given: tuple[str, ...]) -> float:
    """The official evaluator's: the mean over annotators of min(1, matching others / 3).

    Where all annotators say the same to the letter, it compares as is; else it normalises both sides first.
    """
    said, truths = one_line(answer), tuple(map(one_line, given))
    if len(set(truths)) > 1:
        said, truths = normalised(said), tuple(map(normalised, truths))
    matching = sum(one == said for one in truths)
    return math.fsum(min(1.0, (matching - (one == said)) / _ENOUGH) for one in truths) / len(truths)


@dataclass(frozen=True)
class Vqav2:
    """given: the annotators' answers by question id. types: yes/no, number or other."""

    digest: str
    samples: tuple[Sample, ...]
    given: dict[str, tuple[str, ...]]
    most_tokens: int = 16
    prompt: str = "{question}\nAnswer the question using a single word or phrase."
    usual: Mapping[str, str] = field(default_factory=dict)
    same: None = None

    def score(self, answers: Answers) -> Scores:
        asked = [one for one in self.samples if one.id in answers]
        raw = {one.id: one_line(answers[one.id]) for one in asked}
        tidy = {one: plain(answer) for one, answer in raw.items()}
        scored: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for sample in asked:
            given = self.given[sample.id]
            for group in ("all", sample.type):
                scored["official"][group].append(official_accuracy(raw[sample.id], given))
                scored["official, plain"][group].append(official_accuracy(tidy[sample.id], given))
                scored["min(1, n/3)"][group].append(accuracy(raw[sample.id], given))
        groups = sorted(scored["official"], key=lambda group: (group == "all", group))
        lost = sum(b > a for a, b in zip(scored["official"]["all"], scored["official, plain"]["all"], strict=True))
        return Scores(
            measured={f"{name}, {group}": mean(scored[name][group]) for name in scored for group in groups},
            notes=(
                "official: the official evaluator's figure for the answers as they came. official, plain: for the "
                "same answers in small letters without a final period. Where all annotators say the same, that "
                "evaluator compares to the letter.",
                f"{RESULTS} and {PLAIN_RESULTS} hold these answers for the official evaluator.",
            ),
            warnings=(
                f"{lost:,} of {len(asked):,} answers lose accuracy only by a capital letter or a final period; "
                'see "official, plain"',
            )
            if lost
            else (),
            submission={
                name: json.dumps([{"question_id": int(one), "answer": said} for one, said in answered.items()]) + "\n"
                for name, answered in ((RESULTS, raw), (PLAIN_RESULTS, tidy))
            },
        )

    def label(self, sample: str, answer: str) -> str:
        return normalised(answer)

    def mapped(self, word: str) -> str:
        return normalised(word)

    def compare(self, before: Answers, after: Answers) -> dict[str, Measured]:
        shared = [one for one in self.samples if one.id in before and one.id in after]
        kinds = sorted({one.type for one in shared})
        change = {
            one.id: official_accuracy(after[one.id], self.given[one.id])
            - official_accuracy(before[one.id], self.given[one.id])
            for one in shared
        }
        return {
            f"change of official, {kind}": mean([change[one.id] for one in shared if one.type == kind])
            for kind in kinds
        }


def read_vqav2(folder: Path, images: Path | None = None) -> Vqav2:
    """Read the two files of a folder.

    Raises:
        DataError: a file is missing or of another form, or a question has no annotation; names it.
    """
    asked, told = one_file(folder, "*questions.json"), one_file(folder, "*annotations.json")
    questions, annotations = read_json(asked), read_json(told)
    try:
        subtype = str(questions.get("data_subtype", "val2014"))
        truths = {str(one["question_id"]): one for one in annotations["annotations"]}
        places = [images] if images else [folder / subtype, folder / "images", folder]
        samples = tuple(_sample(one, truths, places, subtype) for one in questions["questions"])
        given = {one.id: tuple(str(said["answer"]) for said in truths[one.id]["answers"]) for one in samples}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{asked}, {told}: are not in the form of VQAv2 (at {error}); expected questions with question_id, "
            "image_id, question, and an annotation with answers and answer_type for each"
        ) from error
    if empty := [one for one in samples if not given[one.id]]:
        raise DataError(f"{told}: question {empty[0].id} has no answer of an annotator")
    return Vqav2(digest_of(asked, told), samples, given)


def _sample(one: dict[str, Any], truths: dict[str, dict[str, Any]], places: list[Path], subtype: str) -> Sample:
    truth = truths[str(one["question_id"])]
    name = f"COCO_{subtype}_{int(one['image_id']):012d}.jpg"
    return Sample(
        id=str(int(one["question_id"])),
        question=str(one["question"]),
        image=picture(places, name),
        answer=str(truth.get("multiple_choice_answer", "")),
        type=str(truth["answer_type"]),
    )
