"""The shipped model toward what two fine-tunes answer, by the shift of its own concepts (docs/method.md §3 and 4).

One fine-tune names a place in a phrase ("in the snow"), the other says a thing's color first ("red ball"). Δ is the
mean shift at the position that predicts the first word: of all samples (coarse), or of each concept (fine). Concepts
are clusters of that position, and every word of a caption, so that a gate has somewhere else to go once an answer has
begun. What a fine-tune answers like the shipped model is to stay.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from examples.tinyworld.finetune import Tuning
from examples.tinyworld.scene import Split
from examples.tinyworld.study.figures import Cell, spaced
from examples.tinyworld.study.lab import LAST, STRENGTHS, Lab
from examples.tinyworld.study.prepare import fine_tuned
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.findings import Finding, Measured, SweepFound, TableFound
from trimtab.offline.models.words import words_in
from trimtab.offline.shift.profile import profile_of_shift
from trimtab.offline.states import LayerStates
from trimtab.offline.states.paired import pair_states
from trimtab.offline.states.samples import Sample
from trimtab.offline.statistics import over_draws, rate
from trimtab.offline.steering.operating_point import MOST_COLLATERAL
from trimtab.offline.tuning import Asking, Judge, judged, tried
from trimtab.offline.tuning.candidates import Made
from trimtab.offline.tuning.found import controls_of, percent, points_of
from trimtab.offline.tuning.goals import Case
from trimtab.offline.tuning.trial import REPORTED
from trimtab.vectors import ConceptDictionary, Profile

FOCUSES = ("places", "colors")
STEPS = 120
DATA = "answers"
K = 40
TRIED = (2, 4)
ALPHAS = (1.0, 1.5, 2.0, 3.0)
ASKED: dict[Split, int] = {"dev": 120, "test": 600}
NULLS = 1
"""Draws of random vectors for each null control."""
COLUMNS = ("toward", "kind", "layer", "alpha", "first word of the fine-tune's %", "its whole answer %",
           "other answers changed %")  # fmt: skip

Answers = Mapping[str, Sequence[str]]
"""By sample id: the words of an answer."""


def profiles(lab: Lab) -> list[Profile]:
    """Coarse and fine toward each fine-tune, at two layers, with null controls."""
    made = [one for focus in FOCUSES for one in _made(lab, focus)]
    return [profile for one in made for profile in (one.profile, *one.nulls(NULLS))]


@functools.cache
def _made(lab: Lab, focus: str) -> tuple[Made, ...]:
    tuned = _tuned(lab, focus)
    made = []
    for layer in TRIED:
        states = lab.states(DATA, "last-prompt", layer)
        pairs = pair_states(states, tuned.states(DATA, "last-prompt", layer))
        for kind, concepts in (("coarse", None), ("fine", _concepts(lab, states))):
            profile = profile_of_shift(f"toward-{focus}-{kind}-{layer}", pairs, concepts, alpha=STRENGTHS)
            made.append(Made(kind, kind, layer, profile, ALPHAS))
    return tuple(made)


def study(lab: Lab, asking: Asking) -> dict[str, Finding]:
    """How much of what each fine-tune changed its shift brings to the shipped model, and what else that changes."""
    dev, test = (lab.exam(asking, DATA, part, count) for part, count in ASKED.items())
    rows: list[tuple[Cell, ...]] = []
    found: dict[str, Finding] = {}
    for focus in FOCUSES:
        said = _said(_tuned(lab, focus))
        outcome = tried(_made(lab, focus), judge_toward(said), dev, test, MOST_COLLATERAL, nulls=NULLS)
        for row in outcome.rows:
            if row.what in (*REPORTED, "null"):
                draws = [shares(test.samples, test.plain, answers, said) for answers in row.draws]
                figures = (percent(over_draws(figure)) for figure in zip(*draws, strict=True))
                series = f"null of {row.series}" if row.what == "null" else row.series
                rows.append((focus, series, row.layer, row.alpha, *figures))
        found[f"toward-{focus}"] = SweepFound(
            title=f"Toward the fine-tune for {focus}: gain against collateral change",
            note="Gained: answers that begin with its word, of those that it changed. Collateral: others that changed.",
            points=points_of(outcome),
            controls=controls_of(outcome),
        )
    found["toward"] = TableFound(
        title=f"The shipped model toward its fine-tunes, through the server: {ASKED['test']} test questions",
        note="Layer and alpha are chosen on dev: most gain at no more than 5 % collateral. The shift is measured at "
        "the position that predicts the first word.",
        columns=COLUMNS,
        rows=tuple(rows),
        command="python -m examples.tinyworld.study --part toward",
    )
    return found


def judge_toward(said: Answers) -> Judge:
    """Meant: what the fine-tune changed. Turned: begins like its answer. Spoilt: what it did not change, and is."""

    def cases(samples: Sequence[Sample], before: Sequence[str], after: Sequence[str]) -> list[Case]:
        found = []
        for sample, old, new in zip(samples, map(_words, before), map(_words, after), strict=True):
            theirs = list(said[sample.id])
            meant = old != theirs
            turned = meant and new[:1] == theirs[:1] != old[:1]
            found.append(Case(meant, turned, meant and not turned and new != old, None if meant else new != old))
        return found

    return Judge(cases)


def shares(
    samples: Sequence[Sample], before: Sequence[str], after: Sequence[str], said: Answers
) -> tuple[Measured, Measured, Measured]:
    """Of what the fine-tune changed: answers with its first word, and with all of its words. Of the rest: changed."""
    found = judged(judge_toward(said), samples, before, after)
    whole = [
        _words(new) == list(said[sample.id])
        for sample, old, new in zip(samples, before, after, strict=True)
        if _words(old) != list(said[sample.id])
    ]
    assert found.collateral is not None  # so short a fine-tune leaves most answers as they were
    return found.gained, rate(sum(whole), len(whole)), found.collateral


def _tuned(lab: Lab, focus: str) -> Lab:
    """The same study on a fine-tune, which is trained where it is not there yet."""
    tuning = Tuning(focus, steps=STEPS, save_every=STEPS)
    return Lab(lab.out, fine_tuned(lab.out / "models", tuning, lab.model))


def _concepts(lab: Lab, first: LayerStates) -> ConceptDictionary:
    """Means of the K-Means clusters of the first position, and of the positions of captions that predict each word."""
    said = lab.states("captions", "predicts:*", first.layer)
    clusters = (f"cluster {number}" for number in kmeans(first, K).nearest(first.values))
    both = replace(
        first,
        values=np.concatenate([first.values, said.values]),
        labels=(*clusters, *(f"says {word}" for word in said.labels)),
        tokens=np.concatenate([first.tokens, said.tokens]),
        sample_ids=(*first.sample_ids, *said.sample_ids),
        positions=np.concatenate([first.positions, said.positions]),
        weights=np.concatenate([first.weights, said.weights]),
    )
    return class_means(both)


def _said(tuned: Lab) -> Answers:
    """What the fine-tune itself answers."""
    found: dict[str, list[str]] = defaultdict(list)
    for split, count in ASKED.items():
        states = tuned.states(DATA, "predicts:*", LAST, split, draw=count)
        for sample, word in zip(states.sample_ids, states.labels, strict=True):
            found[sample].append(word)
    return found


def _words(answer: str) -> list[str]:
    return [word.text for word in words_in(spaced(answer))]
