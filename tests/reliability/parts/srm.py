"""One unit in a hundred is lost, in one arm alone: how often the sample ratio says so, and whether it says where.

units: so many that the loss is found with a chance of 0.95. found: the share of experiments in which it is. placed: of
those in which one of two replicas loses two in a hundred, the share in which that replica is named. false_alarms: the
share of experiments without a loss that are said to have one, at most 0.002.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trimtab.offline.experiments.srm import ALARM, mismatch, where

UNITS, REPETITIONS, PLACED = 1_000_000, 4000, 40
LOSS = 0.01


def run(work: Path, share: float) -> dict[str, Any]:
    repetitions = max(200, round(REPETITIONS * share))
    rng = np.random.default_rng(0)
    found = sum(mismatch(_lossy(rng, LOSS), (1, 1)) < ALARM for _ in range(repetitions)) / repetitions
    alarms = sum(mismatch(_lossy(rng, 0.0), (1, 1)) < ALARM for _ in range(repetitions)) / repetitions
    tries = max(4, round(PLACED * share))
    placed = sum(_placed(rng) for _ in range(tries)) / tries
    wrong = []
    if found < 0.9:
        wrong.append(f"a loss of {LOSS:.0%} among {UNITS:,} units is found in {found:.3f} of the experiments only")
    if alarms > 0.002 + 3 * (0.001 / repetitions) ** 0.5:
        wrong.append(f"without any loss {alarms:.4f} of the experiments are said to have one")
    if placed < 0.9:
        wrong.append(f"the replica that loses units is named in {placed:.2f} of the experiments only")
    return {
        "repetitions": repetitions,
        "units": UNITS,
        "loss": LOSS,
        "found": found,
        "placed": placed,
        "false_alarms": alarms,
        "wrong": wrong,
    }


def _lossy(rng: np.random.Generator, loss: float) -> list[int]:
    control = int(rng.binomial(UNITS, 0.5))
    return [control, int(rng.binomial(UNITS - control, 1 - loss))]


def _placed(rng: np.random.Generator) -> bool:
    arm, replica = rng.integers(0, 2, UNITS), rng.integers(0, 2, UNITS)
    kept = rng.random(UNITS) >= 2 * LOSS * arm * replica
    arm, replica = arm[kept], replica[kept]
    found = where(arm, (1, 1), {"replica": np.where(replica, "second", "first").tolist()})
    return [which for _, which, _ in found] == ["second"]
