"""Exposure logs for the parts on experiments: one of a server, where TRIMTAB_EXPOSURES names it, or a simulated one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from trimtab.plugin.control.experiments.assign import assigned
from trimtab.vectors.experiments import Closing, Exposure, Plan, UnitKey, read_lines, read_plan

__all__ = ["PLAN", "exposures", "simulated"]

PLAN = """\
version: 1
layers:
  strength: {seed: s-1}
experiments:
  sweep:
    layer: strength
    seed: sweep-1
    coverage: 1.0
    arms:
      control: {weight: 1, steering: none}
      a04: {weight: 1, steering: {profile: weak-a, alpha: 0.4}}
      a08: {weight: 1, steering: {profile: weak-a, alpha: 0.8}}
    planned_units: 5000
    metrics: {primary: {name: asked_for, better: lower}}
    status: running
"""
_BEGAN = 1_790_000_000


def exposures(requests: int) -> tuple[list[Exposure], Plan, str]:
    """A log, its plan, and where they are from: TRIMTAB_EXPOSURES and TRIMTAB_PLAN, or simulated."""
    log, plan = os.environ.get("TRIMTAB_EXPOSURES"), os.environ.get("TRIMTAB_PLAN")
    if log and plan:
        shown = [one for one in read_lines(Path(log)) if isinstance(one, Exposure)]
        return shown, read_plan(Path(plan).read_bytes()), "a served model"
    made = read_plan(PLAN)
    lines = simulated(made, "sweep", requests)
    return [one for one in lines if isinstance(one, Exposure)], made, "simulated"


def simulated(plan: Plan, name: str, requests: int, seed: int = 0) -> Sequence[Exposure | Closing]:
    """The log of a server that had this plan: units that come back some times, in random order.

    Each has the arm that the server gives it.
    """
    rng, one, key = np.random.default_rng(seed), plan.experiments[name], UnitKey("simulated" * 4)
    units = rng.integers(0, max(1, requests // 4), requests)
    lines: list[Exposure | Closing] = []
    for number, unit in enumerate(units.tolist()):
        arm = assigned(plan, name, f"unit-{unit}", key)
        if arm is None:
            continue
        asked = one.arms[arm].profiles
        steered = asked[0] if asked else None
        when = datetime.fromtimestamp(_BEGAN + number, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        exposure = Exposure(
            timestamp=when,
            exposure_id=f"exp-{number:032x}",
            experiment=name,
            seed=one.seed,
            variation=arm,
            unit=key.pseudonym(f"unit-{unit}"),
            unit_source="steering.unit",
            assigned=arm,
            served=arm,
            profile=steered.profile if steered else None,
            alpha=float(steered.alpha) if steered and steered.alpha is not None else None,
            digest="0" * 64 if steered else None,
            plan=plan.digest,
            replica=f"replica-{number % 2}",
            request_id=f"chatcmpl-{number}",
        )
        first = float(rng.gamma(4, 0.03))
        lines += [
            exposure,
            Closing(
                timestamp=when,
                exposure_id=exposure.exposure_id,
                finish_reason="abort" if rng.random() < 0.01 else "stop",
                prompt_tokens=400,
                generated_tokens=1 + int(rng.poisson(40)),
                cached_tokens=256,
                queue_s=0.002,
                first_token_s=first,
                per_token_s=0.02,
                e2e_s=first + 0.8,
            ),
        ]
    return lines
