"""POPE: is there such a thing in the picture? Yes or no, in three splits.

    DATA/*pope*_random.json, *_popular.json, *_adversarial.json   JSON lines: question_id, image, text, label
    pictures   in the folder of pictures, DATA/val2014, DATA/images or DATA

The files on A-OKVQA and GQA (aokvqa_pope_seem_random.json, …) have the same form, one data set in a folder.

Each split that is there is asked. An answer is read as the official script reads it: no when its first sentence has the
word no or not, else yes; "NO" and "**No**" are a yes to it. How many answers were read as yes without saying it stands
beside the figures, and a warning when they are more than one in a hundred.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import DataError, SettingError
from ...findings import Measured
from ...models.words import find_phrases
from ...states.samples import Sample
from ...statistics import rate
from ..benchmark import Answers, Scores, digest_of, picture

__all__ = ["SPLITS", "Pope", "read_pope", "said_neither", "said_yes"]

SPLITS = ("random", "popular", "adversarial")
_NO = ("No", "no", "not")
_FEW = 0.01


def said_yes(answer: str) -> bool:
    """The official reading, whose letters' case counts: "No", "no" and "not" are a no, "NO" is not."""
    return not any(word in _NO for word in answer.partition(".")[0].replace(",", "").split(" "))


def said_neither(answer: str) -> bool:
    """Whether the official reading makes a yes of an answer that does not say yes."""
    return said_yes(answer) and not find_phrases(answer, ["yes"])


@dataclass(frozen=True)
class Pope:
    """Samples are called split/question_id; `answer` is the label, `type` the split."""

    digest: str
    samples: tuple[Sample, ...]
    most_tokens: int = 16
    prompt: str = "{question}"
    usual: Mapping[str, str] = field(default_factory=dict)
    same: None = None

    def score(self, answers: Answers) -> Scores:
        measured: dict[str, Measured] = {}
        plain: dict[str, float] = {}
        submission: dict[str, str] = {}
        for split in SPLITS:
            asked = [one for one in self.samples if one.type == split and one.id in answers]
            if not asked:
                continue
            rates, f1 = _figures((one.answer == "yes", said_yes(answers[one.id])) for one in asked)
            measured |= {f"{name}, {split}": figure for name, figure in rates.items()}
            plain[f"F1, {split}"] = f1
            lines = [json.dumps({"question": one.question, "answer": answers[one.id]}) for one in asked]
            submission[f"pope_{split}.jsonl"] = "".join(f"{line}\n" for line in lines)
        neither = [answer for answer in answers.values() if said_neither(answer)]
        plain["answers without yes or no"] = float(len(neither))
        return Scores(
            measured=measured,
            plain=plain,
            notes=(
                "As in the official script an answer is a yes unless its first sentence has the word No, no or not: "
                '"NO", "**No**" and an empty answer count as yes.',
            ),
            warnings=(
                f"{len(neither):,} of {len(answers):,} answers were read as yes though they do not say it, such as "
                f"{min(neither, key=len)[:40]!r}; the figures of POPE mean little here",
            )
            if len(neither) > _FEW * len(answers)
            else (),
            submission=submission,
        )

    def label(self, sample: str, answer: str) -> str:
        return "yes" if said_yes(answer) else "no"

    def mapped(self, word: str) -> str:
        if word.lower() not in ("yes", "no"):
            raise SettingError(f"--map {word}: POPE's answers are read as yes or no; map one of these to the other")
        return word.lower()

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
        found = sorted(folder.glob(f"*pope*_{split}.json*"))
        if len(found) > 1:
            raise DataError(f"{folder}: holds several files of the split {split}: {', '.join(map(str, found))}")
        if found:
            files[split] = found[0]
    if not files:
        raise DataError(
            f"{folder}: holds no split of POPE; expected files such as coco_pope_random.json or "
            "gqa_pope_seem_random.json"
        )
    places = [images] if images else [folder / "val2014", folder / "images", folder]
    samples = tuple(sample for split, path in files.items() for sample in _samples(split, path, places))
    return Pope(digest_of(*files.values()), samples)


def _samples(split: str, path: Path, places: list[Path]) -> Iterable[Sample]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # a line may hold U+2028, which is no end of a line here
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); expected JSON lines") from error
    for number, line in enumerate(lines, start=1):
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
