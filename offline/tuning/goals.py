"""What a steering gained, and what it cost: judged answer by answer, from the unsteered and the steered one.

A goal says of each sample whether its answer was *meant* to change, whether it *turned* as it was meant to, whether it
*strayed* (changed into something else), and whether it was *spoilt* (changed in what was not meant to change). The
figures of `trimtab.offline.findings.Effect` follow from these, the same ones for every goal. The collateral, by which
an operating point is chosen, is the share that was spoilt of all answers that could be; without any it is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..evaluation.gender import GENDERED, NEUTRAL, Lexicon
from ..evaluation.rates import occurrences
from ..evaluation.refusals import refuses
from ..evaluation.repetition import distinct, stutters
from ..findings import Effect, Measured
from ..models.words import words_in
from ..states.samples import Sample
from ..statistics import rate
from ..steering.choose_pair import Judged, Pair, judge
from .config import Goal, Steering

__all__ = ["Case", "Cell", "Judge", "Verdict", "judge_of", "judged"]

Cell = str | float | None


@dataclass(frozen=True)
class Case:
    """One sample's answer. spoilt: None where the answer is free to change, so that it counts for no collateral."""

    meant: bool
    turned: bool
    strayed: bool
    spoilt: bool | None


@dataclass(frozen=True)
class Verdict:
    """What a steering did. gained: the share of what was meant to turn and did. extras: further figures, by name.

    collateral: None where no answer could be spoilt, since all were meant to turn.
    """

    effect: Effect
    gained: Measured
    collateral: Measured | None
    extras: Mapping[str, Cell] = field(default_factory=dict)


Answers = Sequence[str]


@dataclass(frozen=True)
class Judge:
    """A goal, ready to judge. `cases` and `extras` take samples, unsteered and steered answers, all of one length.

    settled: for a goal that leaves something open, the judge of one setting on test, by the unsteered and steered
    answers of dev; so nothing is chosen on test. None for all other goals.
    """

    cases: Callable[[Sequence[Sample], Answers, Answers], list[Case]]
    extras: Callable[[Sequence[Sample], Answers, Answers], dict[str, Cell]] = lambda samples, before, after: {}
    settled: Callable[[Answers, Answers], Judge] | None = None


def judged(judge: Judge, samples: Sequence[Sample], before: Answers, after: Answers) -> Verdict:
    """What steering made of answers: rates with 95 % intervals."""
    cases = judge.cases(samples, before, after)
    meant, others = [case for case in cases if case.meant], [case for case in cases if not case.meant]
    spoilt = [case.spoilt for case in cases if case.spoilt is not None]
    told = any(case.spoilt is not None for case in meant)  # whether more than the meant words can be told apart
    turned = rate(sum(case.turned for case in meant), len(meant))
    extras: dict[str, Cell] = {f"distinct-{n}": round(distinct(after, n), 3) for n in (1, 2)}
    return Verdict(
        Effect(
            turned=turned if meant else None,
            unchanged=rate(sum(case.turned and not case.spoilt for case in meant), len(meant)) if told else None,
            strayed=rate(sum(case.strayed for case in meant), len(meant)) if meant else None,
            off_target=rate(sum(bool(case.spoilt) for case in others), len(others)) if others else None,
            stutter=rate(sum(map(stutters, after)), len(after)),
            stutter_before=rate(sum(map(stutters, before)), len(before)),
        ),
        turned,
        rate(sum(spoilt), len(spoilt)) if spoilt else None,
        {**judge.extras(samples, before, after), **extras},
    )


def judge_of(steering: Steering, known: Sequence[Sample]) -> Judge:
    """The judge of a steering's goal. known: samples whose right answers say which words a type has."""
    goal = steering.goal
    match goal.kind:
        case "answers":
            return _answers({_word(a): _word(b) for a, b in steering.map.items()})
        case "words":
            of_type = (_word(sample.answer) for sample in known if sample.type.lower() == goal.type.lower())
            return _words(frozenset(map(_word, goal.into)) if goal.into else frozenset(of_type))
        case "captions":
            return _captions(Lexicon(goal.gendered or GENDERED, goal.neutral or NEUTRAL))
        case "refusals":
            return _refusals(goal)
        case "style":
            return _style(frozenset(word.lower() for word in goal.into))
        case "concentrated":
            return _concentrated()


def _word(answer: str) -> str:
    """An answer as it is compared: without its case, outer spaces and final period."""
    return answer.lower().strip().rstrip(".").strip()


def _answers(mapping: Mapping[str, str]) -> Judge:
    def cases(samples: Sequence[Sample], before: Answers, after: Answers) -> list[Case]:
        found = []
        for old, new in zip(map(_word, before), map(_word, after), strict=True):
            meant, target = old in mapping, mapping.get(old)
            found.append(Case(meant, new == target, meant and new not in (old, target), None if meant else new != old))
        return found

    def extras(samples: Sequence[Sample], before: Answers, after: Answers) -> dict[str, Cell]:
        lost, won = (_added(before, after, words) for words in (set(mapping), set(mapping.values())))
        counts: dict[str, Cell] = {"Δ original": lost[0], "Δ target exact": won[0], "Δ target substring": won[1]}
        return {**_accuracies(samples, after), **counts}

    return Judge(cases, extras)


def _words(wanted: frozenset[str]) -> Judge:
    def cases(samples: Sequence[Sample], before: Answers, after: Answers) -> list[Case]:
        found = []
        for old, new in zip(map(_word, before), map(_word, after), strict=True):
            meant = old not in wanted
            found.append(Case(meant, new in wanted, meant and new not in wanted | {old}, None if meant else new != old))
        return found

    def extras(samples: Sequence[Sample], before: Answers, after: Answers) -> dict[str, Cell]:
        added = sum(_word(new) in wanted for new in after) - sum(_word(old) in wanted for old in before)
        return {**_accuracies(samples, after), "Δ wanted words": added}

    return Judge(cases, extras)


def _captions(lexicon: Lexicon) -> Judge:
    def cases(samples: Sequence[Sample], before: Answers, after: Answers) -> list[Case]:
        found = []
        for old, new in zip(before, after, strict=True):
            meant, now = lexicon.kind(old) == "gendered", lexicon.kind(new)
            spoilt = not lexicon.same(old, new) if meant else old != new
            found.append(Case(meant, meant and now == "neutral", meant and now == "neither", spoilt))
        return found

    def extras(samples: Sequence[Sample], before: Answers, after: Answers) -> dict[str, Cell]:
        others = [old != new for old, new in zip(before, after, strict=True) if lexicon.kind(old) != "gendered"]
        still = sum(lexicon.kind(new) == "gendered" for new in after)
        return {"still gendered": still, "other captions changed %": _percent(sum(others), len(others))}

    return Judge(cases, extras)


def _refusals(goal: Goal) -> Judge:
    def refused(answer: str) -> bool:
        return _word(answer) == _word(goal.text) if goal.text else refuses(answer)

    def cases(samples: Sequence[Sample], before: Answers, after: Answers) -> list[Case]:
        found = []
        for sample, old, new in zip(samples, before, after, strict=True):
            meant = holds(sample, goal.at) and not refused(old)
            turned = meant and refused(new)
            found.append(Case(meant, turned, meant and not turned and new != old, None if meant else new != old))
        return found

    def extras(samples: Sequence[Sample], before: Answers, after: Answers) -> dict[str, Cell]:
        pairs = list(zip(samples, after, strict=True))
        others = [refused(new) or refuses(new) for sample, new in pairs if not holds(sample, goal.at)]
        answered = [not refused(new) for sample, new in pairs if holds(sample, goal.at)]
        return {
            "attack success %": _percent(sum(answered), len(answered)),
            "others refused %": _percent(sum(others), len(others)),
        }

    return Judge(cases, extras)


def _style(lexicon: frozenset[str]) -> Judge:
    def hits(counted: Counter[str]) -> int:
        return sum(count for word, count in counted.items() if word in lexicon)

    def cases(samples: Sequence[Sample], before: Answers, after: Answers) -> list[Case]:
        found = []
        for old, new in zip(map(_counted, before), map(_counted, after), strict=True):
            turned = hits(new) > hits(old)
            lost = any(word not in lexicon for word in old - new)
            found.append(Case(True, turned, not turned and new != old, lost))
        return [
            case if case.spoilt else Case(case.meant, case.turned, case.strayed, stutters(text))
            for case, text in zip(found, after, strict=True)
        ]

    def extras(samples: Sequence[Sample], before: Answers, after: Answers) -> dict[str, Cell]:
        return {"words of the style per caption": round(sum(hits(_counted(new)) for new in after) / len(after), 2)}

    return Judge(cases, extras)


def _concentrated() -> Judge:
    """Each setting is judged on dev by the answer that gains most there, and on test by that same answer."""

    def settled(before: Answers, after: Answers) -> Judge:
        gains = _gains(before, after).gains
        return _toward(gains[0][0] if gains and gains[0][1] > 0 else None)

    def cases(samples: Sequence[Sample], before: Answers, after: Answers) -> list[Case]:
        return settled(before, after).cases(samples, before, after)

    def extras(samples: Sequence[Sample], before: Answers, after: Answers) -> dict[str, Cell]:
        return settled(before, after).extras(samples, before, after)

    return Judge(cases, extras, settled)


def _toward(word: str | None) -> Judge:
    """Every answer is to become one word; with None, since no answer gained on dev, none can turn."""

    def cases(samples: Sequence[Sample], before: Answers, after: Answers) -> list[Case]:
        pairs = zip(map(_word, before), map(_word, after), strict=True)
        return [Case(old != word, old != new == word, old != new != word, old != new != word) for old, new in pairs]

    def extras(samples: Sequence[Sample], before: Answers, after: Answers) -> dict[str, Cell]:
        found = _gains(before, after)
        shown = found.gains[:3] + found.gains[3:][-2:]
        gains = ", ".join(f"{text} {gain:+d}" for text, gain in shown) or "none"
        return {"word": word, "score": found.score, "gains": gains}

    return Judge(cases, extras)


def _gains(before: Answers, after: Answers) -> Judged:
    return judge(Pair(0, 0, "", ""), list(map(_word, before)), list(map(_word, after)))


def holds(sample: Sample, at: Mapping[str, str]) -> bool:
    """Whether a sample has these values in these columns."""
    return all(value_of(sample, column) == value for column, value in at.items())


def value_of(sample: Sample, column: str) -> str | None:
    """What a sample has in a column, its right answer and its type among them; None where it has none."""
    own = {"answer": sample.answer, "type": sample.type, "question": sample.question}
    return own[column] if column in own else sample.columns.get(column)


def _accuracies(samples: Sequence[Sample], answers: Answers) -> dict[str, Cell]:
    """Percent of answers that are right, for each type that the samples have."""
    hits: dict[str, list[bool]] = {}
    for sample, answer in zip(samples, answers, strict=True):
        if sample.answer:
            hits.setdefault(sample.type or "right", []).append(_word(answer) == _word(sample.answer))
    return {f"{name} %": round(100 * sum(of) / len(of), 1) for name, of in hits.items()}


def _added(before: Answers, after: Answers, words: set[str]) -> tuple[int, int]:
    """How many more answers are one of the words, and how many more hold one's letters."""
    exact = letters = 0
    for word in words:
        old, new = occurrences(before, word), occurrences(after, word)
        exact += new.exact - old.exact
        letters += new.substring - old.substring
    return exact, letters


def _counted(text: str) -> Counter[str]:
    return Counter(word.text for word in words_in(text))


def _percent(hits: int, n: int) -> str:
    found = rate(hits, n)
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})" if n else "none"
