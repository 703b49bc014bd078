"""What an arm's requests met: how they ended, how fast they were, and how much came out of the prefix cache."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..findings import ServedFound
from .metrics import Rows
from .units import Units

__all__ = ["served_by_arm"]

Float64 = npt.NDArray[np.float64]


def served_by_arm(units: Units, log: Rows, even: bool) -> list[ServedFound]:
    """One per arm. even: whether arms have equal weights; else nothing is told that a colder cache would change."""
    arm_of_request, arm_of_ended = units.arm[units.of], units.arm[log.of]
    other = np.array([one.served != one.assigned for one in units.exposures])
    found = []
    for place in range(len(units.arms)):
        ended = arm_of_ended == place
        values = {name: one[ended] for name, one in log.values.items()}
        prompts = float(np.nansum(values["prompt_tokens"]))
        found.append(
            ServedFound(
                requests=int((arm_of_request == place).sum()),
                ended=int(ended.sum()),
                aborted=int(values["aborted"].sum()),
                failed=int(values["failed"].sum()),
                other=int(other[arm_of_request == place].sum()),
                generated=_median(values["generated_tokens"]),
                cached=float(np.nansum(values["cached_tokens"])) / prompts if even and prompts else None,
                first_token=_median(values["first_token_s"]) if even else None,
                per_token=_median(values["per_token_s"]) if even else None,
            )
        )
    return found


def _median(values: Float64) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None
