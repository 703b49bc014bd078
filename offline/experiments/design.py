"""What is analysed: the arms, their weights, the metrics and the planned size, by the plan or else by the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trimtab.vectors.experiments import Arm, Experiment, Exposure, Plan

from ..errors import DataError, SettingError
from .metrics import Metric
from .sequence import PLANNED

__all__ = ["ArmDesign", "By", "Design", "designed"]

By = Literal["sequence", "planned"]


@dataclass(frozen=True)
class ArmDesign:
    """profile, alpha: where the arm steers by one profile; of an unsteered arm alpha is 0; else None."""

    name: str
    weight: float
    steering: str
    profile: str | None = None
    alpha: float | None = None


@dataclass(frozen=True)
class Design:
    """arms: the control first. by: which interval decides. assumed: sentences about what no plan said."""

    experiment: str
    seed: str
    arms: tuple[ArmDesign, ...]
    primary: Metric
    guardrails: tuple[Metric, ...]
    planned_units: int
    by: By = "sequence"
    plan: str = ""
    assumed: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The arms' names."""
        return tuple(one.name for one in self.arms)

    @property
    def weights(self) -> tuple[float, ...]:
        """The arms' weights."""
        return tuple(one.weight for one in self.arms)

    @property
    def even(self) -> bool:
        """Whether all arms have the same weight, so that they may be compared by how fast they are."""
        return max(self.weights) - min(self.weights) <= 1e-9 * max(self.weights)


def designed(
    exposures: Sequence[Exposure],
    plan: Plan | None,
    *,
    experiment: str | None = None,
    metric: str | None = None,
    better: Literal["higher", "lower"] | None = None,
    planned_units: int | None = None,
    by: By = "sequence",
) -> Design:
    """The design of one experiment of a log. What is given here goes before what the plan says.

    Raises:
        DataError: the log holds no exposure, several experiments and none is named, or not the one that is named.
        SettingError: nothing names the primary metric; or `by` is "planned" and nothing says how many units.
    """
    name = _named(exposures, experiment)
    own = [one for one in exposures if one.experiment == name]
    planned = None if plan is None else plan.experiments.get(name)
    if plan is not None and planned is None:
        raise DataError(f"the plan holds no experiment {name!r}; it holds {', '.join(plan.experiments) or 'none'}")
    units = planned_units or (planned.planned_units if planned else None)
    if by == "planned" and units is None:
        raise SettingError(
            "--decide planned needs the planned size; give --planned-units, or planned_units in the plan"
        )
    metrics = planned.metrics if planned else None
    if metric is None and metrics is None:
        raise SettingError("nothing says which metric decides; give --primary, or metrics in the plan")
    if metrics is not None and metric in (None, metrics.primary.name):
        primary = Metric.of(metrics.primary.name, metrics.primary)
    else:
        primary = Metric(str(metric))
    if better is not None:
        primary = Metric(primary.name, better, primary.kind, primary.denominator)
    guardrails = {} if metrics is None else metrics.guardrails
    assumed = [] if planned else ["No plan is given: equal weights are assumed for the arms of the log."]
    if units is None:
        assumed.append(f"No planned size is given: intervals are narrowest at {PLANNED:,} units.")
    seed = planned.seed if planned else max(own, key=lambda one: one.timestamp).seed
    return Design(
        experiment=name,
        seed=seed,
        arms=_of_plan(planned, own) if planned else _of_log([one for one in own if one.seed == seed]),
        primary=primary,
        guardrails=tuple(Metric.of(one, guard) for one, guard in guardrails.items() if one != primary.name),
        planned_units=units or PLANNED,
        by=by,
        plan=plan.digest if plan else "",
        assumed=tuple(assumed),
    )


def _named(exposures: Sequence[Exposure], experiment: str | None) -> str:
    known = list(dict.fromkeys(one.experiment for one in exposures))
    if not known:
        raise DataError("the log holds no exposure; give the file or the folder that the server writes")
    if experiment is None and len(known) > 1:
        raise DataError(f"the log holds several experiments; name one of {', '.join(known)} with --experiment")
    if experiment is not None and experiment not in known:
        raise DataError(f"the log holds no exposure of {experiment!r}; it holds those of {', '.join(known)}")
    return experiment or known[0]


def _of_plan(planned: Experiment, own: Sequence[Exposure]) -> tuple[ArmDesign, ...]:
    order = [planned.control, *(name for name in planned.arms if name != planned.control)]
    return tuple(_arm(name, planned.arms[name], own) for name in order)


def _arm(name: str, arm: Arm, own: Sequence[Exposure]) -> ArmDesign:
    asked = arm.profiles
    if asked is None:
        return ArmDesign(name, arm.weight, "the server's default")
    if not asked:
        return ArmDesign(name, arm.weight, "none", alpha=0.0)
    alphas = [one.alpha for one in asked]
    if len(asked) == 1 and alphas[0] is None:  # the profile's default, which the log knows where nothing is enforced
        alphas = [_seen(name, own)[1]]
    told = ", ".join(
        one.profile if alpha is None else f"{one.profile} at {float(alpha):g}"
        for one, alpha in zip(asked, alphas, strict=True)
    )
    if len(asked) > 1:
        return ArmDesign(name, arm.weight, told)
    return ArmDesign(name, arm.weight, told, asked[0].profile, None if alphas[0] is None else float(alphas[0]))


def _of_log(own: Sequence[Exposure]) -> tuple[ArmDesign, ...]:
    names = sorted({one.assigned for one in own}, key=lambda name: (name != "control", name))
    if len(names) < 2:
        raise DataError(f"the log assigns units to {names[0]} alone; there is nothing to compare it with")
    made = []
    for name in names:
        profile, alpha = _seen(name, own)
        told = "none" if profile is None else profile if alpha is None else f"{profile} at {alpha:g}"
        made.append(ArmDesign(name, 1.0, told, profile, 0.0 if profile is None else alpha))
    return tuple(made)


def _seen(arm: str, own: Sequence[Exposure]) -> tuple[str | None, float | None]:
    """The profile and strength that most requests of an arm were served with."""
    served = Counter((one.profile, one.alpha) for one in own if one.assigned == arm == one.served)
    if not served:
        return None, None
    profile, alpha = served.most_common(1)[0][0]
    return profile, alpha if isinstance(alpha, float) else None
