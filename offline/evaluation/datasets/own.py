"""Samples of one's own: the JSON lines that `trimtab represent` reads (see `trimtab.offline.states.samples`).

Where samples have an answer, it is held against the model's: to the letter, and with both sides normalised as VQAv2
normalises them, so that "Two." is "2". Figures are given for all samples and for each type. As captions they are told
apart by their gendered and neutral words instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import DataError
from ...findings import Measured
from ...states.prompts import prompt_for
from ...states.samples import Sample, read_samples
from ...statistics import mean, rate
from ..benchmark import Answers, Scores
from ..captions import ByGender
from ..gender import Lexicon
from .vqav2_text import normalised

__all__ = ["OwnCaptions", "OwnSamples", "read_own"]

Judge = Callable[[str, str], bool]
_JUDGES: dict[str, Judge] = {
    "accuracy to the letter": lambda said, truth: said.strip() == truth.strip(),
    "accuracy, normalised": lambda said, truth: normalised(said) == normalised(truth),
}


@dataclass(frozen=True)
class OwnSamples:
    """Samples without an answer are asked, and count in the matrix of answers, but have no accuracy."""

    digest: str
    samples: tuple[Sample, ...]
    prompt: str = "{question}"
    most_tokens: int = 64
    usual: Mapping[str, str] = field(default_factory=dict)
    same: None = None

    def score(self, answers: Answers) -> Scores:
        groups = self._groups(answers, with_truth=True)
        untold = sum(not one.answer for one in self.samples if one.id in answers)
        return Scores(
            measured={
                f"{name}, {group}": rate(sum(judge(answers[one.id], one.answer) for one in own), len(own))
                for name, judge in _JUDGES.items()
                for group, own in groups.items()
            },
            notes=(f"{untold:,} samples have no answer to be held against.",) if untold else (),
        )

    def label(self, sample: str, answer: str) -> str:
        return normalised(answer)

    def mapped(self, word: str) -> str:
        return normalised(word)

    def compare(self, before: Answers, after: Answers) -> dict[str, Measured]:
        both = {one: before[one] for one in before.keys() & after.keys()}
        changed = {
            f"answers changed, {group}": rate(
                sum(normalised(before[one.id]) != normalised(after[one.id]) for one in own), len(own)
            )
            for group, own in self._groups(both).items()
        }
        judge = _JUDGES["accuracy, normalised"]
        return changed | {
            f"change of accuracy, normalised, {group}": mean(
                [float(judge(after[one.id], one.answer)) - judge(before[one.id], one.answer) for one in own]
            )
            for group, own in self._groups(both, with_truth=True).items()
        }

    def _groups(self, answers: Answers, with_truth: bool = False) -> dict[str, list[Sample]]:
        """The samples that have an answer, by type, then all of them; one group where there is one type."""
        groups: dict[str, list[Sample]] = defaultdict(list)
        for one in self.samples:
            if one.id in answers and (one.answer or not with_truth):
                groups[one.type or "other"].append(one)
        all_of = [one for own in groups.values() for one in own]
        return {**(dict(sorted(groups.items())) if len(groups) > 1 else {}), **({"all": all_of} if all_of else {})}


@dataclass(frozen=True)
class OwnCaptions(ByGender):
    """Samples whose answers are captions."""

    digest: str
    samples: tuple[Sample, ...]
    prompt: str
    lexicon: Lexicon
    most_tokens: int = 64

    def score(self, answers: Answers) -> Scores:
        return Scores(measured=self.kinds([answers[one.id] for one in self.samples if one.id in answers]))


def read_own(file: Path, lexicon: Lexicon | None = None) -> OwnSamples | OwnCaptions:
    """Read a samples file; a data.json beside it says the prompt (see `trimtab.offline.states.prompts`).

    lexicon: the words by which answers are judged as captions; None holds them against the samples' own answers.

    Raises:
        DataError: it is a folder, or no samples file; names it.
    """
    if file.is_dir():
        inside = ", ".join(sorted(str(one) for one in file.glob("*.jsonl"))) or "it holds no *.jsonl"
        raise DataError(f"{file}: is a folder; give a samples file, such as one of: {inside}")
    read = read_samples(file)
    if lexicon is not None:
        return OwnCaptions(read.digest, read.samples, prompt_for(file), lexicon)
    return OwnSamples(read.digest, read.samples, prompt_for(file))
