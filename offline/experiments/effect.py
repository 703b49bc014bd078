"""The effect of an arm against the control, by unit: means, ratios of means, and what a pre-period explains.

A ratio's variance is the delta method's (Deng, Knoblich, Lu 2018); a pre-period is used by CUPED (Deng, Xu, Kohavi,
Walker 2013). Both are tea-tasting's; several arms at once are Dunnett's, by scipy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import dunnett, norm
from tea_tasting.metrics import RatioOfMeans

from .columns import NAMES, Column, aggregates, filled, per_unit

__all__ = ["FEWEST", "LEVEL", "Effect", "against_control", "effect"]

LEVEL = 0.95
"""Of every interval."""
FEWEST = 30
"""Units per arm below which no interval is told: all of them lean on the normal distribution."""


@dataclass(frozen=True)
class Effect:
    """An arm beside the control.

    difference: arm - control, in the metric's unit; error: its standard error; low, high: its interval, which holds
    with 95 % where it is looked at once. relative: the difference as a share of the control's value, and its interval;
    None where the value of either is not clearly above 0. p: of no difference. units: of the control and of the arm.
    explained: the share of the variance that the pre-period explains.
    """

    control: float
    arm: float
    difference: float
    error: float
    low: float
    high: float
    relative: tuple[float, float, float] | None
    p: float
    units: tuple[int, int]
    explained: float = 0.0


def effect(control: Column, arm: Column) -> Effect | None:
    """The effect of an arm.

    None: an arm has fewer than 30 units, or the metric does not vary, so nothing can be told.
    """
    if min(len(control), len(arm)) < FEWEST or _empty(control) or _empty(arm):
        return None
    if all(one.constant and not one.share for one in (control, arm)):
        return None
    control, arm = filled([control, arm])
    named = control.named()
    metric = RatioOfMeans(*(name if name in named else None for name in NAMES), use_t=False, confidence_level=LEVEL)
    lift = _lift(control, arm)
    found = metric.analyze_aggregates(aggregates(control, lift), aggregates(arm, lift))
    error = (found.effect_size_ci_upper - found.effect_size_ci_lower) / 2 / float(norm.ppf((1 + LEVEL) / 2))
    explained = 0.0
    if "before" in named:
        plain = effect(control.without_before(), arm.without_before())
        explained = 0.0 if plain is None else 1 - (error / plain.error) ** 2
    relative = (found.rel_effect_size, found.rel_effect_size_ci_lower, found.rel_effect_size_ci_upper)
    known = not lift and all(map(math.isfinite, relative))
    return Effect(
        control=float(found.control - lift),
        arm=float(found.treatment - lift),
        difference=float(found.effect_size),
        error=float(error),
        low=float(found.effect_size_ci_lower),
        high=float(found.effect_size_ci_upper),
        relative=(float(relative[0]), float(relative[1]), float(relative[2])) if known else None,
        p=float(found.pvalue),
        units=(len(control), len(arm)),
        explained=explained,
    )


def against_control(control: Column, arms: Mapping[str, Column]) -> dict[str, tuple[float, float]]:
    """Dunnett's intervals of arm - control by arm: all of them hold together with 95 %, looked at once.

    The test takes all arms to vary alike. Arms with fewer than 30 units have none, and no arm has any where nothing
    varies.
    """
    arms = {name: one for name, one in arms.items() if len(one) >= FEWEST and not _empty(one)}
    if not arms or len(control) < FEWEST or _empty(control):
        return {}
    samples = _adjusted(filled([control, *arms.values()]))
    if all(one.constant for one in (control, *arms.values())):
        return {}
    found = dunnett(*samples[1:], control=samples[0], rng=np.random.default_rng(0))
    interval = found.confidence_interval(LEVEL)
    return {name: (float(interval.low[i]), float(interval.high[i])) for i, name in enumerate(arms)}


def _adjusted(columns: Sequence[Column]) -> list[npt.NDArray[np.float64]]:
    """One value per unit; by CUPED with one coefficient over all arms, so that no arm's noise chooses its own."""
    samples = [per_unit(one.numerator, one.denominator) for one in columns]
    before = [per_unit(one.before, one.before_denominator) for one in columns if one.before is not None]
    if not before:
        return samples
    y, x = (np.concatenate([one - one.mean() for one in side]) for side in (samples, before))
    slope = float(y @ x) / float(x @ x)
    centre = float(np.concatenate(before).mean())
    return [sample - slope * (one - centre) for sample, one in zip(samples, before, strict=True)]


def _empty(column: Column) -> bool:
    return column.denominator is not None and float(column.denominator.sum()) <= 0


def _lift(control: Column, arm: Column) -> float:
    """What is added to both values while they are compared; 0 where both are clearly above 0.

    tea-tasting takes their logarithms for the relative change, and fails where one is near 0 or below.
    """
    both = [per_unit(one.numerator, one.denominator) for one in (control, arm)]
    values, errors = [float(one.mean()) for one in both], [float(one.std()) / math.sqrt(len(one)) for one in both]
    if all(value > max(0.0, 3 * error) for value, error in zip(values, errors, strict=True)):
        return 0.0
    return 1.0 - min(values) + 100 * max(errors)
