"""Experiments whose arms are the same: how often a difference is seen that is not there.

Units make about ten requests each, and some units are likelier than others to be counted, so that requests of a unit
are alike. repetitions: experiments. fixed_false_alarms: those whose fixed interval leaves 0 at the planned size.
sequence_false_alarms: those whose interval of every look leaves 0 at any of 20 looks. peeking_false_alarms: those whose
fixed interval leaves 0 at any of the 20, which is why it decides at the planned size alone. Shares, at most 0.06 of the
first two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trimtab.offline.experiments.columns import Column
from trimtab.offline.experiments.compared import looked
from trimtab.offline.experiments.sequence import half_width
from trimtab.plugin.control.experiments.assign import arm_of
from trimtab.vectors.experiments import Experiment, UnitKey, read_plan

REPETITIONS, UNITS = 2000, 2000
MOST = 0.06
PLAN = """\
version: 1
layers: {one: {seed: s-1}}
experiments:
  aa: {layer: one, seed: aa-0, coverage: 1.0, arms: {control: {steering: none}, same: {steering: none}}}
"""
_KEY = UnitKey("simulated" * 4)


def run(work: Path, share: float) -> dict[str, Any]:
    repetitions = max(20, round(REPETITIONS * share))
    plan = read_plan(PLAN).experiments["aa"]
    fixed = sequence = peeking = 0
    for number in range(repetitions):
        column = _requests(np.random.default_rng(number))
        arm = _arms(plan.model_copy(update={"seed": f"aa-{number}"}))
        every = [one for _, one in looked(column, arm, 1)]
        last = every[-1]
        fixed += not last.low < 0 < last.high
        peeking += any(not one.low < 0 < one.high for one in every)
        sequence += any(abs(one.difference) > half_width(one.error, sum(one.units), UNITS) for one in every)
    found = {"fixed_false_alarms": fixed / repetitions, "sequence_false_alarms": sequence / repetitions}
    wrong = [f"{name} are {value:.3f} of {repetitions}" for name, value in found.items() if value > MOST]
    told = {"repetitions": repetitions, "units": UNITS, "looks": len(every)}
    return {**told, **found, "peeking_false_alarms": peeking / repetitions, "wrong": wrong}


def _requests(rng: np.random.Generator) -> Column:
    """Requests of each unit, and how many of them count."""
    requests = rng.geometric(0.1, UNITS)
    rate = rng.beta(2, 6, UNITS)
    return Column(rng.binomial(requests, rate).astype(float), requests.astype(float))


def _arms(plan: Experiment) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Of each unit, 0 for the control, as the server assigns it under this seed."""
    return np.array([arm_of(plan, f"unit-{i}", _KEY) != plan.control for i in range(UNITS)], np.int64)
