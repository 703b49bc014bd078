"""VQAv2: its questions, annotations and results files, and both of its accuracies.

    DATA/*questions.json     v2_OpenEnded_mscoco_val2014_questions.json, or one in its form
    DATA/*annotations.json   v2_mscoco_val2014_annotations.json
    COCO_val2014_%012d.jpg   in the folder of pictures, in DATA/val2014, DATA/images or DATA

`official` is what the official evaluator gives for the results file that is written: for each annotator, the
share min(1, n / 3) of those who agree among the *others*, averaged. The paper uses `min(1, n/3)`.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...findings import Measured
from ...states.samples import Sample
from ...statistics import mean
from ..benchmark import Answers, Scores, digest_of, one_file, picture, read_json
from .vqav2_text import normalised

__all__ = ["Vqav2", "accuracy", "official_accuracy", "read_vqav2"]

_ENOUGH = 3
RESULTS = "vqav2_results.json"


def accuracy(answer: str, given: tuple[str, ...]) -> float:
    """min(1, matching annotators / 3), both sides normalised (docs/method.md §5)."""
    said = normalised(answer)
    return min(1.0, sum(normalised(one) == said for one in given) / _ENOUGH)


def official_accuracy(answer: str, given: tuple[str, ...]) -> float:
    """The official evaluator's: the mean over annotators of min(1, matching others / 3).

    Where all annotators say the same to the letter, it compares as is; else it normalises both sides first.
    """
    said, truths = answer.replace("\n", " ").replace("\t", " ").strip(), given
    if len(set(given)) > 1:
        said, truths = normalised(said), tuple(map(normalised, given))
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

    def score(self, answers: Answers) -> Scores:
        ours: dict[str, list[float]] = defaultdict(list)
        theirs: dict[str, list[float]] = defaultdict(list)
        results = []
        for sample in self.samples:
            if sample.id not in answers:
                continue
            said, given = normalised(answers[sample.id]), self.given[sample.id]
            results.append({"question_id": int(sample.id), "answer": said})
            for group in ("all", sample.type):
                ours[group].append(accuracy(said, given))
                theirs[group].append(official_accuracy(said, given))
        groups = sorted(ours, key=lambda group: (group == "all", group))
        return Scores(
            measured={
                **{f"official, {group}": mean(theirs[group]) for group in groups},
                **{f"min(1, n/3), {group}": mean(ours[group]) for group in groups},
            },
            notes=(
                f"{RESULTS} holds normalised answers; the official evaluator gives the official accuracy for them when "
                "every question is answered.",
            ),
            submission={RESULTS: json.dumps(results) + "\n"},
        )

    def label(self, sample: str, answer: str) -> str:
        return normalised(answer)

    def compare(self, before: Answers, after: Answers) -> dict[str, Measured]:
        shared = [one for one in self.samples if one.id in before and one.id in after]
        kinds = sorted({one.type for one in shared})
        change = {
            one.id: official_accuracy(normalised(after[one.id]), self.given[one.id])
            - official_accuracy(normalised(before[one.id]), self.given[one.id])
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
