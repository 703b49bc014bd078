"""POPE: is there such a thing in the picture? Yes or no, in three splits.

    DATA/*pope_random.json, *pope_popular.json, *pope_adversarial.json   JSON lines: question_id, image, text, label
    pictures   in the folder of pictures, DATA/val2014, DATA/images or DATA

Each split that is there is asked. An answer is read as the official script reads it: no when its first sentence has the
word no or not, else yes. Answers that say neither are therefore a yes; how many there are stands beside the figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ...findings import Measured
from ...models.words import find_phrases
from ...states.samples import Sample
from ...statistics import rate
from ..benchmark import Answers, Scores, digest_of, picture

__all__ = ["SPLITS", "Pope", "read_pope", "said_yes"]

SPLITS = ("random", "popular", "adversarial")
_NO = ("No", "no", "not")


def said_yes(answer: str) -> bool:
    """The official reading, whose letters' case counts: "No", "no" and "not" are a no, "NO" is not."""
    return not any(word in _NO for word in answer.partition(".")[0].replace(",", "").split(" "))


@dataclass(frozen=True)
class Pope:
    """Samples are called split/question_id; `answer` is the label, `type` the split."""

    digest: str
    samples: tuple[Sample, ...]
    most_tokens: int = 16
    prompt: str = "{question}"

    def score(self, answers: Answers) -> Scores:
        measured: dict[str, Measured] = {}
        plain: dict[str, float] = {}
        submission: dict[str, str] = {}
        for split in [one for one in SPLITS if any(sample.type == one for sample in self.samples)]:
            asked = [one for one in self.samples if one.type == split and one.id in answers]
            rates, f1 = _figures((one.answer == "yes", said_yes(answers[one.id])) for one in asked)
            measured |= {f"{name}, {split}": figure for name, figure in rates.items()}
            plain[f"F1, {split}"] = f1
            lines = [json.dumps({"question": one.question, "answer": answers[one.id]}) for one in asked]
            submission[f"pope_{split}.jsonl"] = "".join(f"{line}\n" for line in lines)
        neither = sum(not find_phrases(answer, ("yes", "no", "not")) for answer in answers.values())
        plain["answers without yes or no"] = float(neither)
        return Scores(
            measured=measured,
            plain=plain,
            notes=("An answer that says neither yes nor no counts as yes, as in the official script.",),
            submission=submission,
        )

    def label(self, sample: str, answer: str) -> str:
        return "yes" if said_yes(answer) else "no"

    def compare(self, before: Answers, after: Answers) -> dict[str, Measured]:
        shared = [one for one in self.samples if one.id in before and one.id in after]
        changed = sum(said_yes(before[one.id]) != said_yes(after[one.id]) for one in shared)
        return {"answers changed": rate(changed, len(shared))}


def _figures(judged: Iterable[tuple[bool, bool]]) -> tuple[dict[str, Measured], float]:
    """From (the truth is yes, yes was said): rates, and F1 (0 where no yes was right)."""
    pairs = list(judged)
    right = sum(truth == said for truth, said in pairs)
    true = sum(truth for truth, _ in pairs)
    said = sum(said for _, said in pairs)
    both = sum(truth and said for truth, said in pairs)
    rates = {
        "accuracy": rate(right, len(pairs)),
        "precision": rate(both, said),
        "recall": rate(both, true),
        "yes ratio": rate(said, len(pairs)),
    }
    return rates, 2 * both / (true + said) if both else 0.0


def read_pope(folder: Path, images: Path | None = None) -> Pope:
    """Read the splits that a folder holds.

    Raises:
        DataError: there is none, there are two of one split, or a line is of another form; names it.
    """
    files: dict[str, Path] = {}
    for split in SPLITS:
        found = sorted(folder.glob(f"*pope_{split}.json*"))
        if len(found) > 1:
            raise DataError(f"{folder}: holds several files of the split {split}: {', '.join(map(str, found))}")
        if found:
            files[split] = found[0]
    if not files:
        raise DataError(f"{folder}: holds no split of POPE; expected files such as coco_pope_random.json")
    places = [images] if images else [folder / "val2014", folder / "images", folder]
    samples = tuple(sample for split, path in files.items() for sample in _samples(split, path, places))
    return Pope(digest_of(*files.values()), samples)


def _samples(split: str, path: Path, places: list[Path]) -> Iterable[Sample]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
            label = str(one["label"])
            if label not in ("yes", "no"):
                raise ValueError(f"label {label!r}")
            yield Sample(
                id=f"{split}/{one['question_id']}",
                question=str(one["text"]),
                image=picture(places, str(one["image"])),
                answer=label,
                type=split,
            )
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}, line {number}: is not in the form of POPE (at {error}); expected question_id, image, text "
                "and a label yes or no"
            ) from error
