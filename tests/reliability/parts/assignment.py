"""Each unit gets one arm: the same after a restart, on every replica, and while the coverage grows.

units: how many are assigned. chi2_p: of their arms beside the weights. reshuffled_on_ramp: units that had an arm and
got another one, or none, when the coverage or the range grew. two_arms: units that two processes assign differently.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from scipy.stats import chisquare

from tests.engine.engine import ROOT
from trimtab.plugin.control.experiments.assign import assigned
from trimtab.vectors.experiments import Plan, UnitKey, read_plan

UNITS = 200_000
KEY = "the key of the units of a reliability run"
WEIGHTS = {"control": 1, "a04": 1, "a08": 2}
RAMP = [(0.05, 0.3), (0.2, 0.3), (0.2, 0.6), (1.0, 1.0)]
_ELSEWHERE = """
import sys
from tests.reliability.parts.assignment import arms, plan_of
print(*arms(plan_of(1.0, 1.0), int(sys.argv[1])), sep="\\n")
"""


def plan_of(coverage: float, end: float) -> Plan:
    arms = {name: {"weight": weight, "steering": "none"} for name, weight in WEIGHTS.items()}
    one = {"layer": "l", "range": [0, end], "seed": "s-1", "coverage": coverage, "arms": arms, "status": "running"}
    layers = {"l": {"seed": "l-1", "holdout": 0.05}}
    return read_plan(json.dumps({"version": 1, "layers": layers, "experiments": {"doses": one}}))


def arms(plan: Plan, units: int) -> list[str | None]:
    key = UnitKey(KEY)
    return [assigned(plan, "doses", f"user-{number}", key) for number in range(units)]


def run(work: Path, share: float) -> dict[str, Any]:
    units = max(2000, round(UNITS * share))
    moved, before = 0, list[str | None]([None] * units)
    for coverage, end in RAMP:
        after = arms(plan_of(coverage, end), units)
        moved += sum(old is not None and old != new for old, new in zip(before, after, strict=True))
        before = after
    elsewhere = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(units)], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    two_arms = sum(str(here) != there for here, there in zip(before, elsewhere, strict=True))
    counts, total = Counter(before), sum(arm is not None for arm in before)
    expected = [total * weight / sum(WEIGHTS.values()) for weight in WEIGHTS.values()]
    p = float(chisquare([counts[arm] for arm in WEIGHTS], expected).pvalue)
    wrong = []
    if p < 1e-3:
        wrong.append(f"the arms of {total:,} units do not follow the weights (p = {p:.2g})")
    if moved:
        wrong.append(f"{moved} units changed their arm while the coverage grew")
    if two_arms:
        wrong.append(f"{two_arms} units have another arm in another process")
    return {"units": units, "chi2_p": p, "reshuffled_on_ramp": moved, "two_arms": two_arms, "wrong": wrong}
