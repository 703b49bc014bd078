"""From exposures to units: one row per unit, in the arm to which it was assigned first.

Intention to treat: a unit belongs to the arm that it was assigned, whatever it was served, and its failed and aborted
requests stay in. Forced requests are left out. Nothing else is, and what may bias the comparison is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.vectors.experiments import Closing, Exposure

from ..errors import DataError
from .outcomes import seconds

__all__ = ["Units", "units_of"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Units:
    """N units in the order of their first exposure, and their E exposures.

    arm: int64 [N], index of `arms`. first: float64 [N], seconds since 1970. names: pseudonyms [N]. slices: by what the
    traffic can be cut, one value per unit, of its first exposure.
    exposures: [E], in order of time, each once. of: int64 [E], the unit of each. closings: by exposure.
    counted: what was left out or may bias, by name.
    """

    arms: tuple[str, ...]
    names: list[str]
    arm: Int64
    first: npt.NDArray[np.float64]
    slices: Mapping[str, list[str]]
    exposures: list[Exposure]
    of: Int64
    closings: Mapping[str, Closing]
    counted: dict[str, int]

    def __len__(self) -> int:
        return len(self.names)

    def upto(self, count: int) -> Units:
        """The first `count` units alone."""
        kept = self.of < count
        return Units(
            self.arms,
            self.names[:count],
            self.arm[:count],
            self.first[:count],
            {name: values[:count] for name, values in self.slices.items()},
            [one for one, keep in zip(self.exposures, kept, strict=True) if keep],
            self.of[kept],
            self.closings,
            self.counted,
        )

    def per_arm(self, chosen: npt.NDArray[np.bool_] | None = None) -> list[int]:
        """Units by arm; chosen: bool [N], of these only."""
        arm = self.arm if chosen is None else self.arm[chosen]
        counts: list[int] = np.bincount(arm, minlength=len(self.arms)).tolist()
        return counts


def units_of(
    exposures: Sequence[Exposure],
    closings: Sequence[Closing],
    experiment: str,
    seed: str,
    arms: Sequence[str],
) -> Units:
    """The units of one experiment under one seed. arms: the control first.

    Raises:
        DataError: an exposure names another arm; there is no exposure left.
    """
    own = [one for one in exposures if one.experiment == experiment]
    phase = [one for one in own if one.seed == seed]
    free = [one for one in phase if not one.forced]
    once: dict[str, Exposure] = {}
    for one in sorted(free, key=lambda one: one.timestamp):
        once.setdefault(one.exposure_id, one)
    if not once:
        raise DataError(f"the log holds no exposure of {experiment!r} under the seed {seed!r} that was not forced")
    place = {name: i for i, name in enumerate(arms)}
    strangers = {one.assigned for one in once.values()} - set(place)
    if strangers:
        raise DataError(
            f"the log assigns units of {experiment!r} to {', '.join(sorted(strangers))}; the plan's arms under the "
            f"seed {seed!r} are {', '.join(arms)}. Give the plan of that time"
        )
    shown = list(once.values())
    row: dict[str, int] = {}
    firsts: list[Exposure] = []
    met: list[tuple[set[str], set[str | None]]] = []
    for one in shown:
        if one.unit not in row:
            row[one.unit] = len(firsts)
            firsts.append(one)
            met.append((set(), set()))
        seen = met[row[one.unit]]
        seen[0].add(one.assigned)
        if one.served == one.assigned:
            seen[1].add(one.digest)
    closed: dict[str, Closing] = {}
    for line in closings:
        closed.setdefault(line.exposure_id, line)
    return Units(
        arms=tuple(arms),
        names=list(row),
        arm=np.array([place[one.assigned] for one in firsts], np.int64),
        first=np.array([seconds(one.timestamp) for one in firsts]),
        slices={
            "replica": [one.replica for one in firsts],
            "source of the unit": [one.unit_source for one in firsts],
            "plan": [one.plan[:19] for one in firsts],
            "day": [one.timestamp[:10] for one in firsts],
        },
        exposures=shown,
        of=np.array([row[one.unit] for one in shown], np.int64),
        closings=closed,
        counted={
            "requests of other seeds, left out": len(own) - len(phase),
            "forced requests, left out": len(phase) - len(free),
            "exposures logged twice, counted once": len(free) - len(shown),
            "requests that were served something else than their arm": sum(one.served != one.assigned for one in shown),
            "units that met two arms, counted in their first": sum(len(arms) > 1 for arms, _ in met),
            "units that met two versions of a profile": sum(len(digests) > 1 for _, digests in met),
            "requests that no line closed": sum(one.exposure_id not in closed for one in shown),
        },
    )
