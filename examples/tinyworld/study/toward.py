"""The shipped model toward what two fine-tunes answer, by the shift of its own concepts (docs/method.md §3 and 4).

One fine-tune names a place in a phrase ("in the snow"), the other says a thing's color first ("red ball"). Δ is the
mean shift at the position that predicts the first word: of all samples (coarse), or of each concept (fine). Concepts
are clusters of that position, and every word of a caption, so that a gate has somewhere else to go once an answer has
begun. What a fine-tune answers like the shipped model is to stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from examples.tinyworld.finetune import Tuning, finetune
from examples.tinyworld.scene import Split
from examples.tinyworld.study.exam import Exam, Server
from examples.tinyworld.study.figures import TYPES, Cell, became, percent, spaced
from examples.tinyworld.study.lab import LAST, LAYERS, STRENGTHS, Lab
from examples.tinyworld.study.trial import Judge, Variant, decided
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.findings import Finding, Measured, SweepFound, SweepPoint, TableFound
from trimtab.offline.models.words import words_in
from trimtab.offline.shift.profile import profile_of_shift
from trimtab.offline.states import LayerStates
from trimtab.offline.states.paired import pair_states
from trimtab.offline.statistics import rate
from trimtab.offline.steering.null_control import random_control
from trimtab.vectors import ConceptDictionary, Profile

FOCUSES = ("places", "colors")
STEPS = 120
FILE = "vqa.jsonl"
K = 40
KINDS = ("coarse", "fine")
ALPHAS = (0.5, 1.0, 1.5, 2.0, 3.0)
ASKED: dict[Split, int] = {"dev": 300, "test": 600}
COLUMNS = ("toward", "kind", "layer", "alpha", "first word of the fine-tune's %", "its whole answer %",
           "other answers changed %")  # fmt: skip

Answers = Mapping[str, Sequence[str]]
"""By sample id: the words of an answer."""


def profiles(lab: Lab) -> list[Profile]:
    """Coarse and fine toward each fine-tune, at every layer, with null controls."""
    made = []
    for focus in FOCUSES:
        tuned = _tuned(lab, focus)
        for layer in LAYERS:
            states = lab.states(FILE, "last-prompt", layer)
            pairs = pair_states(states, tuned.states(FILE, "last-prompt", layer))
            for kind, concepts in (("coarse", None), ("fine", _concepts(lab, states))):
                made.append(profile_of_shift(_name(focus, kind, layer), pairs, concepts, alpha=STRENGTHS))
    return [*made, *(random_control(one, f"{one.name}-null", seed=0) for one in made)]


def study(lab: Lab, server: Server) -> dict[str, Finding]:
    """How much of what each fine-tune changed its shift brings to the shipped model, and what else that changes."""
    rows: list[tuple[Cell, ...]] = []
    found: dict[str, Finding] = {}
    for focus in FOCUSES:
        tuned = _tuned(lab, focus)
        dev, test = (
            Exam(server, split, lab.split(split), lab.samples(split, TYPES, ASKED[split])) for split in ("dev", "test")
        )
        said = _said(tuned)
        judge = judge_toward(said)
        points: list[SweepPoint] = []
        for kind in KINDS:
            variants = [Variant(kind, _name(focus, kind, layer), layer) for layer in LAYERS]
            outcome = decided(dev, test, variants, ALPHAS, judge)
            points += outcome.points
            name, layer, alpha = outcome.setting.variant.profile, outcome.test.layer, outcome.setting.strength
            rows.append((focus, kind, layer, alpha, *_figures(test, outcome.answers, said)))
            null = test.steered(f"{name}-null", alpha)
            rows.append((focus, f"null of {kind}", layer, alpha, *_figures(test, null, said)))
            if kind == "fine":
                steering = f"the shift to the fine-tune for {focus}, by concept"
                found[f"became-{focus}"] = became(f"Toward {focus}", steering, test, outcome.answers)
        found[f"toward-{focus}"] = SweepFound(
            title=f"Toward the fine-tune for {focus}: gain against collateral change",
            note="Gained: answers that begin with its word, of those that it changed. Collateral: others that changed.",
            points=tuple(points),
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
    """Gained: answers that begin like the fine-tune's, of those that it changed. Collateral: others that changed."""

    def judge(exam: Exam, answers: Sequence[str]) -> tuple[Measured, Measured]:
        gained, _, collateral = shares(exam, answers, said)
        return gained, collateral

    return judge


def shares(exam: Exam, answers: Sequence[str], said: Answers) -> tuple[Measured, Measured, Measured]:
    """Of what the fine-tune changed: answers with its first word, and with all of its words. Of the rest: changed."""
    changed, kept = [], []
    for sample, old, new in zip(exam.samples, map(_words, exam.plain), map(_words, answers), strict=True):
        theirs = list(said[sample.id])
        if old == theirs:
            kept.append(new != old)
        else:
            changed.append((new[:1] == theirs[:1] != old[:1], new == theirs))
    first, whole = (sum(column) for column in zip(*changed, strict=True))
    return rate(first, len(changed)), rate(whole, len(changed)), rate(sum(kept), len(kept))


def _figures(exam: Exam, answers: Sequence[str], said: Answers) -> list[Cell]:
    return [percent(one) for one in shares(exam, answers, said)]


def _tuned(lab: Lab, focus: str) -> Lab:
    """The same study on a fine-tune, which is trained where it is not there yet."""
    model = lab.out / "models" / focus
    if not model.is_dir():
        steps = model.with_name(f"{focus}-steps")
        finetune(steps, Tuning(focus, steps=STEPS, save_every=STEPS), lab.model).rename(model)
    return Lab(lab.out, model, lab.model)


def _concepts(lab: Lab, first: LayerStates) -> ConceptDictionary:
    """Means of the K-Means clusters of the first position, and of the positions of captions that predict each word."""
    said = lab.states("captions.jsonl", "predicts:*", first.layer)
    clusters = (f"cluster {number}" for number in kmeans(first, K).nearest(first.values))
    both = replace(
        first,
        values=np.concatenate([first.values, said.values]),
        labels=(*clusters, *(f"says {word}" for word in said.labels)),
        tokens=np.concatenate([first.tokens, said.tokens]),
        sample_ids=(*first.sample_ids, *said.sample_ids),
        positions=np.concatenate([first.positions, said.positions]),
    )
    return class_means(both)


def _said(tuned: Lab) -> Answers:
    """What the fine-tune itself answers."""
    found: dict[str, list[str]] = defaultdict(list)
    for split in ASKED:
        states = tuned.states(FILE, "predicts:*", LAST, split)
        for sample, word in zip(states.sample_ids, states.labels, strict=True):
            found[sample].append(word)
    return found


def _words(answer: str) -> list[str]:
    return [word.text for word in words_in(spaced(answer))]


def _name(focus: str, kind: str, layer: int) -> str:
    return f"toward-{focus}-{kind}-{layer}"
