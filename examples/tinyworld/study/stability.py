"""Are 50 samples enough? yes → no from disjoint draws: how alike the vectors are, and how alike their effects."""

from __future__ import annotations

from statistics import fmean, stdev

from examples.tinyworld.study.exam import Exam, Server
from examples.tinyworld.study.figures import TYPES, Cell, percent
from examples.tinyworld.study.lab import LAST, STRENGTHS, Lab
from examples.tinyworld.study.trial import Judge
from examples.tinyworld.study.words import QUESTIONS, judge_words
from trimtab.offline.findings import Finding, TableFound
from trimtab.offline.states import LayerStates
from trimtab.offline.steering import coarse_profile
from trimtab.offline.steering.null_control import random_control
from trimtab.offline.steering.stability import cosines, draws
from trimtab.vectors import Profile, SteeringVector

SIZES = (10, 20, 50)
DRAWS = 6
"""Draws of 50 that are served."""
ALPHA = 0.5
SEED = 0
_COMMAND = "python -m examples.tinyworld.study --part stability"


def profiles(lab: Lab) -> list[Profile]:
    """One coarse profile a draw of 50, the one of all samples, and its null control."""
    states = _states(lab)
    whole = coarse_profile("draw-all", [states], {"yes": "no"}, alpha=STRENGTHS)
    drawn = [
        Profile.coarse(f"draw-{number}", [vector], model=whole.manifest.base_model, alpha=STRENGTHS)
        for number, vector in enumerate(draws(states, {"yes"}, {"no"}, 50, SEED)[:DRAWS])
    ]
    return [whole, *drawn, random_control(whole, "draw-null", seed=0)]


def study(lab: Lab, server: Server) -> dict[str, Finding]:
    """Two tables: vectors, effects."""
    dev = Exam(server, "dev", lab.split("dev"), lab.samples("dev", TYPES, QUESTIONS["dev"]))
    return {"stability-vectors": _vectors(_states(lab)), "stability-effects": _effects(dev, judge_words("yes", "no"))}


def _vectors(states: LayerStates) -> TableFound:
    original, target = (states.values[states.of({word})] for word in ("yes", "no"))
    whole = SteeringVector.between(original, target, states.layer)
    table: list[tuple[Cell, ...]] = []
    for size in SIZES:
        vectors = draws(states, {"yes"}, {"no"}, size, SEED)
        alike = cosines(vectors)
        near = [one.cosine(whole) for one in vectors]
        table.append((size, len(vectors), *(round(x, 3) for x in (fmean(alike), min(alike), fmean(near), min(near)))))
    return TableFound(
        title="yes → no from few samples: how alike are the vectors?",
        note=f"Disjoint draws, half yes, half no, of {len(original) + len(target)} train states; layer {whole.layer}.",
        columns=("samples", "draws", "cosine of two, mean", "least", "cosine with the vector of all, mean", "least"),
        rows=tuple(table),
        command=_COMMAND,
    )


def _effects(dev: Exam, judge: Judge) -> TableFound:
    names = [f"draw-{number}" for number in range(DRAWS)]
    table: list[tuple[Cell, ...]] = []
    turned, strayed = [], []
    for name in (*names, "draw-all", "draw-null"):
        gained, collateral = judge(dev, dev.steered(name, ALPHA))
        table.append((name.replace("-", " "), percent(gained), percent(collateral)))
        if name in names:
            turned.append(100 * gained.value)
            strayed.append(100 * collateral.value)
    spread = tuple(f"{fmean(values):.1f} ± {stdev(values):.1f}" for values in (turned, strayed))
    table.insert(DRAWS, ("mean ± standard deviation of the draws", *spread))
    return TableFound(
        title=f"yes → no from disjoint draws of 50 samples, alpha = {ALPHA:g}: {len(dev.samples)} dev questions",
        columns=("vector of", "turned %", "off-target changed %"),
        rows=tuple(table),
        command=_COMMAND,
    )


def _states(lab: Lab) -> LayerStates:
    return lab.states("vqa.jsonl", "last-prompt", LAST)
