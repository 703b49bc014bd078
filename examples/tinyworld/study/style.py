"""Captions toward places and toward colors, at about 60 % depth (docs/method.md §4).

A caption of this world names its place once and has one to three colors, so no set of captions "about places" exists.
The target set is therefore the states that predict a word of the style, the original set the states of all other words:
one rule for both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from examples.tinyworld.scene import COLORS, PLACES
from examples.tinyworld.study.exam import Exam, Server
from examples.tinyworld.study.figures import Cell, diversity, percent, spaced
from examples.tinyworld.study.lab import LAYERS, STRENGTHS, Lab
from examples.tinyworld.study.trial import Judge, Variant, decided, settings
from examples.tinyworld.words import words
from trimtab.offline.concepts import kmeans
from trimtab.offline.evaluation.repetition import stutters
from trimtab.offline.findings import Finding, Measured, SweepFound, TableFound
from trimtab.offline.states import LayerStates
from trimtab.offline.statistics import rate
from trimtab.offline.steering import coarse_profile, fine_profile
from trimtab.offline.steering.null_control import random_control
from trimtab.vectors import Profile

STYLES = {"places": frozenset(PLACES), "colors": frozenset(COLORS)}
REST = "rest"
PAPERS_LAYER = 3
"""Of 6: after four blocks of six, the nearest to 60 % depth that is past it."""
ALPHAS = {"coarse": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0), "fine": (0.25, 0.5, 0.75, 1.0)}
GROWING = (1.0, 2.0, 4.0, 8.0)
K = 40
CAPTIONS = {"dev": 40, "test": 120}
COLUMNS = ("toward", "kind", "layer", "alpha", "words of the style a caption", "captions with more of them %",
           "captions that lost another word or stutter %", "distinct-1", "distinct-2", "repetition %")  # fmt: skip
_COMMAND = "python -m examples.tinyworld.study --part style"


def profiles(lab: Lab) -> list[Profile]:
    """Coarse at every layer and fine at the paper's, toward each style, with null controls."""
    made = []
    for style, lexicon in STYLES.items():
        for layer in LAYERS:
            states = _labelled(lab.states("captions.jsonl", "predicts:*", layer), style, lexicon)
            made.append(coarse_profile(_name(style, "coarse", layer), [states], {REST: style}, alpha=STRENGTHS))
            if layer == PAPERS_LAYER:
                pair = [(states, kmeans(states, K))]
                made.append(fine_profile(_name(style, "fine", layer), pair, {REST: style}, alpha=STRENGTHS))
    return [*made, *(random_control(one, f"{one.name}-null", seed=0) for one in made)]


def study(lab: Lab, server: Server) -> dict[str, Finding]:
    """What each style gains, what it costs, and what growing strengths do to the variety of captions."""
    dev, test = (
        Exam(server, split, lab.split(split), lab.samples(split, ("caption",), CAPTIONS[split]))
        for split in ("dev", "test")
    )
    rows: list[tuple[Cell, ...]] = []
    found: dict[str, Finding] = {}
    for style, lexicon in STYLES.items():
        judge = judge_style(lexicon)
        rows.append((style, "none", None, None, *_figures(test, test.plain, judge, lexicon)))
        tried = {
            "coarse": [Variant("coarse", _name(style, "coarse", layer), layer) for layer in LAYERS],
            "coarse, 60 % depth": [Variant("coarse", _name(style, "coarse", PAPERS_LAYER), PAPERS_LAYER)],
            "fine, 60 % depth": [Variant("fine", _name(style, "fine", PAPERS_LAYER), PAPERS_LAYER)],
        }
        points = []
        for kind, variants in tried.items():
            outcome = decided(dev, test, variants, ALPHAS[variants[0].series], judge)
            points += [point for point in outcome.points if kind != "coarse, 60 % depth" or point.split == "test"]
            name, alpha, layer = outcome.setting.variant.profile, outcome.setting.strength, outcome.test.layer
            rows.append((style, kind, layer, alpha, *_figures(test, outcome.answers, judge, lexicon)))
            null = test.steered(f"{name}-null", alpha)
            rows.append((style, f"null of {kind}", layer, alpha, *_figures(test, null, judge, lexicon)))
            bold = outcome.boldest
            if bold != outcome.setting:
                answers = test.steered(bold.variant.profile, bold.strength)
                figures = _figures(test, answers, judge, lexicon)
                rows.append((style, f"{kind}, at any cost", bold.variant.layer, bold.strength, *figures))
        found[f"style-{style}"] = SweepFound(
            title=f"Captions toward {style}: gain against collateral change",
            note="Gained: captions with more words of the style. Collateral: those that lost another word, or stutter.",
            points=tuple(points),
        )
    found["style"] = TableFound(
        title=f"Caption style, through the server: {len(test.samples)} test captions",
        note="Layer and alpha are chosen on dev: most gain at no more than 5 % collateral. At any cost: "
        "the most gain on dev.",
        columns=COLUMNS,
        rows=tuple(rows),
        command=_COMMAND,
    )
    found["style-diversity"] = _growing(dev)
    return found


def _growing(dev: Exam) -> TableFound:
    rows: list[tuple[Cell, ...]] = [("none", None, 0.0, *diversity(dev.plain))]
    for style, lexicon in STYLES.items():
        variants = [Variant("coarse", _name(style, "coarse", PAPERS_LAYER), PAPERS_LAYER)]
        for one in settings(dev, variants, GROWING, judge_style(lexicon)):
            answers = dev.steered(one.variant.profile, one.strength)
            rows.append((style, PAPERS_LAYER, one.strength, *diversity(answers)))
    return TableFound(
        title=f"Variety of captions against alpha, coarse: {len(dev.samples)} dev captions",
        columns=("toward", "layer", "alpha", "distinct-1", "distinct-2", "repetition %"),
        rows=tuple(rows),
        command=_COMMAND,
    )


def _labelled(states: LayerStates, style: str, lexicon: frozenset[str]) -> LayerStates:
    return replace(states, labels=tuple(style if label in lexicon else REST for label in states.labels))


def _figures(exam: Exam, captions: Sequence[str], judge: Judge, lexicon: frozenset[str]) -> list[Cell]:
    gained, collateral = judge(exam, captions)
    hits = sum(word in lexicon for text in captions for word in words(spaced(text)))
    return [round(hits / len(captions), 2), percent(gained), percent(collateral), *diversity(captions)]


def judge_style(lexicon: frozenset[str]) -> Judge:
    """Gained: captions with more words of the style. Collateral: those that lost another word, or stutter."""

    def judge(exam: Exam, captions: Sequence[str]) -> tuple[Measured, Measured]:
        pairs = [
            (Counter(words(spaced(old))), Counter(words(spaced(new))))
            for old, new in zip(exam.plain, captions, strict=True)
        ]
        more = [_hits(new, lexicon) > _hits(old, lexicon) for old, new in pairs]
        lost = [any(word not in lexicon for word in old - new) for old, new in pairs]
        spoilt = [gone or stutters(spaced(text)) for gone, text in zip(lost, captions, strict=True)]
        return rate(sum(more), len(more)), rate(sum(spoilt), len(spoilt))

    return judge


def _hits(counted: Counter[str], lexicon: frozenset[str]) -> int:
    return sum(count for word, count in counted.items() if word in lexicon)


def _name(style: str, kind: str, layer: int) -> str:
    return f"style-{style}-{kind}-{layer}"
