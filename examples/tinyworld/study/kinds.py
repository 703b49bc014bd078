"""Every answer toward one type: to yes/no, to number, to other (docs/method.md §4)."""

from __future__ import annotations

from collections.abc import Sequence

from examples.tinyworld.scene import Split
from examples.tinyworld.study.exam import Exam, Server
from examples.tinyworld.study.figures import TYPES, Cell, accuracies, became, diversity, percent
from examples.tinyworld.study.lab import LAST, STRENGTHS, Lab
from examples.tinyworld.study.trial import Judge, Outcome, Variant, decided
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.concepts.relabel import relabelled
from trimtab.offline.evaluation.rates import occurrences
from trimtab.offline.findings import Finding, Measured, SweepFound, TableFound
from trimtab.offline.states.relabel import labelled, labels_of_samples
from trimtab.offline.statistics import rate
from trimtab.offline.steering import coarse_profile, fine_profile
from trimtab.offline.steering.null_control import random_control
from trimtab.vectors import Profile

ALPHAS = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
QUESTIONS: dict[Split, int] = {"dev": 120, "test": 360}
K = 40
SERIES = {"coarse": "coarse", "fine": "fine, class means", "kmeans": f"fine, K-Means {K}"}
_OF_TYPE = {"yes/no": ("yes", "no"), "number": ("0", "1", "2", "3", "4")}
COLUMNS = (
    "toward", "kind", "alpha", "yes/no %", "number %", "other %", "Δ of type exact", "Δ of type substring",
    "turned into type %", "changed within type %", "distinct-1", "distinct-2", "repetition %",
)  # fmt: skip


def profiles(lab: Lab) -> list[Profile]:
    """Coarse: from the answers of other types to the mean of the type. Fine: each concept to the nearest of it."""
    plain = lab.states("vqa.jsonl", "last-prompt", LAST)
    data = plain.manifest.request.data
    states = labelled(plain, labels_of_samples(lab.split("train") / "vqa.jsonl", "type", data))
    means, clusters = (relabelled(one, states) for one in (class_means(plain, min_count=5), kmeans(plain, K)))
    made = []
    for target in TYPES:
        mapping: dict[str, str] = {other: target for other in TYPES if other != target}
        made += [
            coarse_profile(_name(target, "coarse"), [states], mapping, alpha=STRENGTHS),
            fine_profile(_name(target, "fine"), [(states, means)], mapping, alpha=STRENGTHS),
            fine_profile(_name(target, "kmeans"), [(states, clusters)], mapping, alpha=STRENGTHS),
        ]
    return [*made, *(random_control(one, f"{one.name}-null", seed=0) for one in made)]


def study(lab: Lab, server: Server) -> dict[str, Finding]:
    """A table over the three types, their curves, and what each answer became."""
    dev, test = (
        Exam(server, split, lab.split(split), lab.samples(split, TYPES, QUESTIONS[split])) for split in ("dev", "test")
    )
    others = frozenset(test.plain + dev.plain).difference(*_OF_TYPE.values())
    words = {**{kind: frozenset(of) for kind, of in _OF_TYPE.items()}, "other": others}
    rows: list[tuple[Cell, ...]] = [("none", "", None, *_figures(test, test.plain, None, frozenset()))]
    found: dict[str, Finding] = {}
    for target in TYPES:
        judge = _judge(words[target])
        outcomes = {
            kind: decided(dev, test, [Variant(series, _name(target, kind), LAST)], ALPHAS, judge)
            for kind, series in SERIES.items()
        }
        for kind, outcome in outcomes.items():
            rows += _rows(test, target, SERIES[kind], outcome, words[target])
        slug = target.replace("/", "")
        found[f"kinds-{slug}"] = SweepFound(
            title=f"To {target}: gain against collateral change",
            note="Gained: answers of another type that became one of this. Collateral: those of it that changed.",
            points=tuple(point for outcome in outcomes.values() for point in outcome.points),
        )
        found[f"to-{slug}"] = became(f"To {target}, fine, test split", f"to {target}", test,
                                             outcomes["fine"].answers)  # fmt: skip
    found["kinds"] = TableFound(
        title=f"Every answer toward one type, through the server: {len(test.samples)} test questions",
        note="Layer 5 (the last). alpha is chosen on dev: most gain at no more than 5 % collateral. The paper steers "
        "types as well and gives no table for it.",
        columns=COLUMNS,
        rows=tuple(rows),
        command="python -m examples.tinyworld.study --part kinds",
    )
    return found


def _rows(test: Exam, target: str, series: str, outcome: Outcome, words: frozenset[str]) -> list[tuple[Cell, ...]]:
    setting = outcome.setting
    null = test.steered(f"{setting.variant.profile}-null", setting.strength)
    return [
        (target, series, setting.strength, *_figures(test, outcome.answers, _judge(words), words)),
        (target, f"null of {series}", setting.strength, *_figures(test, null, _judge(words), words)),
    ]


def _figures(test: Exam, answers: Sequence[str], judge: Judge | None, words: frozenset[str]) -> list[Cell]:
    cells: list[Cell] = [*accuracies(test, answers)]
    if judge is None:
        return [*cells, 0, 0, None, None, *diversity(answers)]
    gained, collateral = judge(test, answers)
    exact = sum(text in words for text in answers) - sum(text in words for text in test.plain)
    letters = _holding(answers, words) - _holding(test.plain, words)
    return [*cells, exact, letters, percent(gained), percent(collateral), *diversity(answers)]


def _judge(words: frozenset[str]) -> Judge:
    def judge(exam: Exam, answers: Sequence[str]) -> tuple[Measured, Measured]:
        pairs = list(zip(exam.plain, answers, strict=True))
        turned = [new in words for old, new in pairs if old not in words]
        within = [new != old for old, new in pairs if old in words]
        return rate(sum(turned), len(turned)), rate(sum(within), len(within))

    return judge


def _holding(answers: Sequence[str], words: frozenset[str]) -> int:
    """How many answers hold the letters of any of the words."""
    return sum(any(occurrences([text], word).substring for word in words) for text in answers)


def _name(target: str, kind: str) -> str:
    return f"to-{target.replace('/', '')}-{kind}"
