"""20,000 outcomes with an effect that is known, over the exposures of a sweep of α: is it found, and how exactly?

exposures: whose log it is; TRIMTAB_EXPOSURES and TRIMTAB_PLAN name one of a server. found: the share of the repetitions
in which the arm that is best in truth is the one to ship. covered: of all intervals of the planned size, those that
hold the truth; covered_every_look: of those that hold at every look, the last one. At least 0.93 of both.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.reliability.exposed import exposures
from trimtab.offline.experiments import Outcomes, analysed, designed
from trimtab.offline.experiments.compared import Compared
from trimtab.offline.experiments.effect import effect
from trimtab.offline.experiments.metrics import Rows, logged
from trimtab.offline.experiments.units import units_of

OUTCOMES, REPETITIONS, WHOLE = 20_000, 400, 20
CONTROL, PER_ALPHA, SPREAD = 0.30, -0.10, 0.1
"""The rate without steering, what α = 1 adds, and how much units differ (standard deviation)."""
LEAST = 0.93


def run(work: Path, share: float) -> dict[str, Any]:
    repetitions = max(20, round(REPETITIONS * share))
    shown, plan, origin = exposures(OUTCOMES)
    design = replace(designed(shown, plan), planned_units=OUTCOMES // 4)
    units = units_of(shown, [], design.experiment, design.seed, design.names)
    truth = CONTROL + PER_ALPHA * np.array([one.alpha or 0.0 for one in design.arms])
    best = design.arms[int(truth.argmin())].name
    held = held_always = told = 0
    for number in range(repetitions):
        rows = Rows(units.of, {design.primary.name: _outcomes(truth, units.arm, units.of, number)})
        compared = Compared(units, rows, logged(units), design, True)
        has, column = compared.main
        for place, one in enumerate(design.arms[1:], 1):
            found = effect(column.of(units.arm[has] == 0), column.of(units.arm[has] == place))
            assert found is not None, one.name
            difference = truth[place] - truth[0]
            held += int(found.low <= difference <= found.high)
            low, high = compared.sequence(found, place)
            held_always += int(low <= difference <= high)
            told += 1
    whole = max(2, round(WHOLE * share))
    shipped = sum(_shipped(shown, design, units, truth, 10_000 + number) == best for number in range(whole)) / whole
    covered = {"covered": held / told, "covered_every_look": held_always / told}
    wrong = [f"{name} is {value:.3f} of {told} intervals" for name, value in covered.items() if value < LEAST]
    if shipped < 0.9:
        wrong.append(f"the better strength is found in {shipped:.2f} of {whole} experiments only")
    return {
        "exposures": origin,
        "outcomes": len(shown),
        "units": len(units),
        "repetitions": repetitions,
        "experiments": whole,
        "better": best,
        "found": shipped,
        **covered,
        "wrong": wrong,
    }


def _outcomes(truth: Any, arm: Any, of: Any, number: int) -> Any:
    """0 or 1 of each request; a unit's requests are alike."""
    rng = np.random.default_rng(number)
    mean = truth[arm]
    concentration = mean * (1 - mean) / SPREAD**2 - 1
    rate = rng.beta(mean * concentration, (1 - mean) * concentration)
    return (rng.random(len(of)) < rate[of]).astype(float)


def _shipped(shown: Any, design: Any, units: Any, truth: Any, number: int) -> str | None:
    """What the whole analysis says should be shipped."""
    values = _outcomes(truth, units.arm, units.of, number)
    ids = [one.exposure_id for one in units.exposures]
    outcomes = Outcomes(ids, [""] * len(ids), np.full(len(ids), np.nan), {design.primary.name: values})
    found = analysed(shown, [], outcomes, design)
    ship = [one for one in found.arms if one.verdict == "ship"]
    return min(ship, key=lambda one: one.metrics[0].difference or 0.0).name if found.verdict == "ship" else None
