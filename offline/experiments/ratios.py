"""Whether units follow the arms' weights, from the log alone: what is looked at by itself, again and again.

It is told in words and as metrics in Prometheus' text format, for the textfile collector of node-exporter. Units are
those of the newest phase, as in the analysis (see `srm`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab.vectors.experiments import Exposure, Plan

from ..errors import DataError
from .design import designed
from .srm import ALARM, mismatch
from .units import units_of

__all__ = ["METRICS", "Checked", "checked", "textfile"]

METRICS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "trimtab_experiment_sample_ratio_p": (
        ("experiment",),
        "p of the test of units by arm against the arms' weights; below 0.001 the experiment tells nothing.",
    ),
    "trimtab_experiment_units": (("experiment", "arm"), "Units that an experiment has so far."),
}
"""By name: labels and help. All are gauges."""


@dataclass(frozen=True)
class Checked:
    """units: by arm, the control first. p: of the χ² test of units by arm against the weights."""

    experiment: str
    seed: str
    units: Mapping[str, int]
    p: float

    @property
    def alarm(self) -> bool:
        """Whether units do not follow the weights."""
        return self.p < ALARM


def checked(exposures: Sequence[Exposure], plan: Plan | None = None, experiment: str | None = None) -> list[Checked]:
    """Each experiment of a log, or the one that is named. Without a plan, equal weights are assumed.

    Raises:
        DataError: the log has no unit of any of them; or as `designed` and `units_of`.
    """
    names = list(dict.fromkeys(one.experiment for one in exposures)) if experiment is None else [experiment]
    found = []
    for name in names:
        if experiment is None and plan is not None and name not in plan.experiments:
            continue  # of an earlier plan
        design = designed(exposures, plan, experiment=name, metric="units")
        own = [one for one in exposures if one.experiment == name]
        if experiment is None and not any(one.seed == design.seed and not one.forced for one in own):
            continue  # a phase that nobody has met yet
        units = units_of(own, (), name, design.seed, design.names)
        counts = units.per_arm()
        p = mismatch(counts, design.weights)
        found.append(Checked(name, design.seed, dict(zip(design.names, counts, strict=True)), p))
    if not found:
        raise DataError("the log holds no unit of an experiment of this plan; give the plan that the server has")
    return found


def textfile(found: Sequence[Checked]) -> str:
    """The metrics, in Prometheus' text format. Names of experiments and arms need no escapes."""
    samples: dict[str, list[tuple[tuple[str, ...], float]]] = {
        "trimtab_experiment_sample_ratio_p": [((one.experiment,), one.p) for one in found],
        "trimtab_experiment_units": [((one.experiment, arm), n) for one in found for arm, n in one.units.items()],
    }
    lines = []
    for name, (labels, told) in METRICS.items():
        lines += [f"# HELP {name} {told}", f"# TYPE {name} gauge"]
        for values, value in samples[name]:
            of = ",".join(f'{label}="{text}"' for label, text in zip(labels, values, strict=True))
            lines.append(f"{name}{{{of}}} {value!r}")
    return "\n".join(lines) + "\n"
