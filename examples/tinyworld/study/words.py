"""One answer into another: yes → no, 1 → 3, white → black, coarse and fine, at every layer (docs/method.md §5)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

from examples.tinyworld.demo.profiles import VQA
from examples.tinyworld.study.exam import Exam, Server
from examples.tinyworld.study.figures import TYPES, Cell, accuracies, added, became, diversity, percent
from examples.tinyworld.study.lab import LAST, LAYERS, STRENGTHS, Lab
from examples.tinyworld.study.trial import Judge, Outcome, Variant, decided, settings
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.errors import SettingError
from trimtab.offline.findings import Finding, Measured, SweepFound, TableFound
from trimtab.offline.states import LayerStates
from trimtab.offline.statistics import rate
from trimtab.offline.steering import coarse_profile, fine_profile
from trimtab.offline.steering.null_control import random_control
from trimtab.offline.steering.operating_point import front
from trimtab.vectors import Profile

ALPHAS = {"coarse": (0.35, 0.5, 0.7, 1.0, 1.5), "fine": (0.7, 1.0, 1.5)}
GROWING = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Strengths of the curve of diversity."""
SIZES = (40, 60, 80)
"""Numbers of concepts among which dev decides; one that gives an answer no concept of its own is left out."""
QUESTIONS = {"dev": 180, "test": 540}
_PUBLISHED: tuple[tuple[Cell, ...], ...] = (
    ("none (LLaVA-1.5, VQAv2)", "", None, None, 90.82, 58.47, 71.10, 0, None, 0),
    ("yes → no (LLaVA-1.5, VQAv2)", "coarse", 31, 1.0, 69.03, 56.82, 68.99, -828, None, 828),
    ("1 → 3 (LLaVA-1.5, VQAv2)", "coarse", 31, 1.0, 90.71, 54.52, 71.12, -215, 92, 144),
    ("white → black (LLaVA-1.5, VQAv2)", "coarse", 31, 1.0, 90.40, 58.42, 58.36, -98, 322, 441),
)
COLUMNS = (
    "steering", "kind", "layer", "alpha", "yes/no %", "number %", "other %", "Δ original", "Δ target exact",
    "Δ target substring", "turned %", "off-target changed %", "distinct-1", "distinct-2", "repetition %",
)  # fmt: skip
PUBLISHED = tuple((*row, *(None for _ in COLUMNS[len(row) :])) for row in _PUBLISHED)


def profiles(lab: Lab) -> list[Profile]:
    """Coarse and fine at every layer for yes → no, at the last layer for the others; each with its null control."""
    made = []
    for steering in VQA:
        for layer in _layers(steering):
            states = lab.states("vqa.jsonl", "last-prompt", layer)
            mapping = dict([VQA[steering]])
            coarse = coarse_profile(_name(steering, "coarse", layer), [states], mapping, alpha=STRENGTHS)
            means = [(states, class_means(states, min_count=5))]
            made += [coarse, fine_profile(_name(steering, "fine", layer), means, mapping, alpha=STRENGTHS)]
            if layer == LAST:
                made += _clustered(steering, states)
    return [*made, *(random_control(one, f"{one.name}-null", seed=0) for one in made)]


def _clustered(steering: str, states: LayerStates) -> list[Profile]:
    found = []
    for k in SIZES:
        with suppress(SettingError):  # no concept stands for one of the two answers
            pair = [(states, kmeans(states, k))]
            name = _name(steering, f"kmeans{k}", LAST)
            found.append(fine_profile(name, pair, dict([VQA[steering]]), alpha=STRENGTHS))
    return found


def study(lab: Lab, server: Server) -> dict[str, Finding]:
    """The paper's table, layer × alpha for yes → no, what each answer became, and diversity against alpha."""
    dev, test = (
        Exam(server, split, lab.split(split), lab.samples(split, TYPES, QUESTIONS[split])) for split in ("dev", "test")
    )
    rows: list[tuple[Cell, ...]] = [*PUBLISHED, ("none", "", None, None, *_figures(test, test.plain, None))]
    found: dict[str, Finding] = {}
    for steering in VQA:
        outcomes = _outcomes(dev, test, steering)
        for kind, outcome in outcomes.items():
            rows += _rows(test, steering, kind, outcome)
        chosen = outcomes["fine, class means"]
        found[f"words-{_slug(steering)}"] = SweepFound(
            title=f"{_spoken(steering)}: gain against collateral change",
            note="Gained: answers that turned into the target. Collateral: all other answers that changed.",
            points=tuple(point for outcome in outcomes.values() for point in outcome.points),
        )
        found[f"front-{_slug(steering)}"] = _front(steering, outcomes.values(), len(dev.samples))
        found[_slug(steering)] = became(
            f"{_spoken(steering)}, fine, test split", _spoken(steering), test, chosen.answers
        )
    found["words"] = TableFound(
        title=f"One answer into another, through the server: {len(test.samples)} test questions",
        note="Layer and alpha are chosen on dev: most gain at no more than 5 % collateral. alpha = 1 at the last layer "
        "is the paper's setting. Null control: random directions of the same norms at the same alpha.",
        columns=COLUMNS,
        rows=tuple(rows),
        published=tuple(range(len(PUBLISHED))),
        command="python -m examples.tinyworld.study --part words",
    )
    found["diversity"] = _diversity(dev)
    return found


def _outcomes(dev: Exam, test: Exam, steering: str) -> dict[str, Outcome]:
    judge = judge_words(*VQA[steering])
    series = {
        "coarse": (
            [Variant("coarse", _name(steering, "coarse", at), at) for at in _layers(steering)],
            ALPHAS["coarse"],
        ),
        "fine, class means": (
            [Variant("fine, class means", _name(steering, "fine", at), at) for at in _layers(steering)],
            ALPHAS["fine"],
        ),
        "fine, K-Means": (
            [
                Variant(f"fine, K-Means {k}", name, LAST)
                for k in SIZES
                if (name := _name(steering, f"kmeans{k}", LAST)) in dev.server.profiles
            ],
            ALPHAS["fine"],
        ),
    }
    return {kind: decided(dev, test, variants, alphas, judge) for kind, (variants, alphas) in series.items()}


def _rows(test: Exam, steering: str, kind: str, outcome: Outcome) -> list[tuple[Cell, ...]]:
    """The chosen setting, the paper's setting where it is another, and the null control of the chosen one."""
    setting = outcome.setting
    series, profile = setting.variant.series, setting.variant.profile
    rounds = [(series, setting.variant.layer, setting.strength, profile)]
    if kind == "coarse" and rounds[0][1:3] != (LAST, 1.0):
        rounds.append(("coarse, the paper's setting", LAST, 1.0, _name(steering, "coarse", LAST)))
    rounds.append((f"null of {series}", setting.variant.layer, setting.strength, f"{profile}-null"))
    return [
        (_spoken(steering), what, layer, alpha, *_figures(test, test.steered(name, alpha), VQA[steering]))
        for what, layer, alpha, name in rounds
    ]


def _figures(test: Exam, answers: Sequence[str], words: tuple[str, str] | None) -> list[Cell]:
    cells: list[Cell] = [*accuracies(test, answers)]
    if words is None:
        return [*cells, 0, 0, 0, None, None, *diversity(answers)]
    gained, collateral = judge_words(*words)(test, answers)
    lost = added(test, answers, words[:1])[0]
    return [*cells, lost, *added(test, answers, words[1:]), percent(gained), percent(collateral), *diversity(answers)]


def judge_words(source: str, target: str) -> Judge:
    """Gained: answers equal to the source that became the target. Collateral: all others that changed."""

    def judge(exam: Exam, answers: Sequence[str]) -> tuple[Measured, Measured]:
        pairs = list(zip(exam.plain, answers, strict=True))
        turned = [new == target for old, new in pairs if old == source]
        others = [new != old for old, new in pairs if old != source]
        return rate(sum(turned), len(turned)), rate(sum(others), len(others))

    return judge


def _front(steering: str, outcomes: Collection[Outcome], asked: int) -> TableFound:
    """The settings of dev that no other of their kind beats."""
    fronts = [front(outcome.tried) for outcome in outcomes]
    tried = sum(len(outcome.tried) for outcome in outcomes)
    return TableFound(
        title=f"{_spoken(steering)}: the Pareto fronts of {tried} settings on {asked} dev questions",
        note="Each kind from the cleanest on: more gain is to be had only for more collateral change.",
        columns=("kind", "layer", "alpha", "turned %", "off-target changed %"),
        rows=tuple(
            (one.variant.series, one.variant.layer, one.strength, percent(one.point.gained),
             percent(one.point.collateral))
            for points in fronts
            for one in points
        ),
        command="python -m examples.tinyworld.study --part words",
    )  # fmt: skip


def _diversity(dev: Exam) -> TableFound:
    """What growing strengths do to the variety of answers, coarse and fine."""
    rows: list[tuple[Cell, ...]] = [("none", "", 0.0, *diversity(dev.plain))]
    for steering in VQA:
        for kind in ("coarse", "fine"):
            variants = [Variant(kind, _name(steering, kind, LAST), LAST)]
            for one in settings(dev, variants, GROWING, judge_words(*VQA[steering])):
                answers = dev.steered(one.variant.profile, one.strength)
                rows.append((_spoken(steering), kind, one.strength, *diversity(answers)))
    return TableFound(
        title=f"Variety of answers against alpha, last layer: {len(dev.samples)} dev questions",
        note="distinct-n: different n-grams over all. Repetition: one to four words three times in a row.",
        columns=("steering", "kind", "alpha", "distinct-1", "distinct-2", "repetition %"),
        rows=tuple(rows),
        command="python -m examples.tinyworld.study --part words",
    )


def _layers(steering: str) -> tuple[int, ...]:
    return LAYERS if steering == "yes->no" else (LAST,)


def _name(steering: str, kind: str, layer: int) -> str:
    return f"{_slug(steering)}-{kind}-{layer}"


def _slug(steering: str) -> str:
    return steering.replace("->", "-to-")


def _spoken(steering: str) -> str:
    return steering.replace("->", " → ")
