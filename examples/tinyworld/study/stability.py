"""Are 50 samples enough? yes → no from disjoint draws: how alike the vectors are, and how alike their effects."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from examples.tinyworld.study.figures import Cell
from examples.tinyworld.study.lab import LAST, STRENGTHS, Lab
from trimtab.offline.findings import Finding, TableFound
from trimtab.offline.states import LayerStates
from trimtab.offline.steering import coarse_profile
from trimtab.offline.steering.null_control import random_control
from trimtab.offline.steering.stability import cosines, draws
from trimtab.offline.tuning import Asking, Exam, judged
from trimtab.offline.tuning.config import Steering
from trimtab.offline.tuning.found import percent
from trimtab.offline.tuning.goals import judge_of
from trimtab.vectors import Profile, SteeringVector

SIZES = (10, 20, 50)
DRAWN = tuple(f"draw-{number}" for number in range(6))
"""Draws of 50 that are served."""
ALPHA = 0.5
SEED = 0
QUESTIONS = 180
_COMMAND = "python -m examples.tinyworld.study --part stability"


def profiles(lab: Lab) -> list[Profile]:
    """One coarse profile a draw of 50, the one of all samples, and its null control."""
    states = _states(lab)
    whole = coarse_profile("draw-all", [states], {"yes": "no"}, alpha=STRENGTHS)
    drawn = [
        Profile.coarse(name, [vector], model=whole.manifest.base_model, alpha=STRENGTHS)
        for name, vector in zip(DRAWN, draws(states, {"yes"}, {"no"}, 50, SEED), strict=False)
    ]
    return [whole, *drawn, random_control(whole, "draw-null", seed=0)]


def study(lab: Lab, asking: Asking) -> dict[str, Finding]:
    """Two tables: vectors, effects."""
    dev = lab.exam(asking, "answers", "dev", QUESTIONS)
    return {"stability-vectors": _vectors(_states(lab)), "stability-effects": _effects(dev, profiles(lab))}


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


def _effects(dev: Exam, served: Sequence[Profile]) -> TableFound:
    judge = judge_of(Steering(map={"yes": "no"}), dev.samples)
    table: list[tuple[Cell, ...]] = []
    turned, strayed = [], []
    for profile in served:
        found = judged(judge, dev.samples, dev.plain, dev.steered(profile, ALPHA))
        table.append((profile.name.replace("-", " "), percent(found.gained), percent(found.collateral)))
        assert found.collateral is not None  # most answers are neither yes nor no
        if profile.name in DRAWN:
            turned.append(100 * found.gained.value)
            strayed.append(100 * found.collateral.value)
    spread = tuple(f"{fmean(values):.1f} ± {stdev(values):.1f}" for values in (turned, strayed))
    table.append(("mean ± standard deviation of the draws", *spread))
    return TableFound(
        title=f"yes → no from disjoint draws of 50 samples, alpha = {ALPHA:g}: {len(dev.samples)} dev questions",
        columns=("vector of", "turned %", "off target %"),
        rows=tuple(table),
        command=_COMMAND,
    )


def _states(lab: Lab) -> LayerStates:
    return lab.states("answers", "last-prompt", LAST)
