"""How many units an experiment needs, or what it can see, told from units that were measured before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tea_tasting.metrics import RatioOfMeans

from ..errors import SettingError
from .columns import NAMES, Column, aggregates, filled
from .effect import FEWEST

__all__ = ["Power", "smallest_effect", "units_needed"]


@dataclass(frozen=True)
class Power:
    """effect: arm - control, in the metric's unit. relative: as a share of its value; None where that is 0.

    units: all arms together, at equal weights. power: the share of experiments that would see the effect.
    """

    effect: float
    relative: float | None
    units: int
    power: float


def units_needed(column: Column, effect: float, arms: int = 2, power: float = 0.8, alpha: float = 0.05) -> Power:
    """The units that show an effect where they are looked at once.

    arms: the control among them. alpha: false alarms of all comparisons with the control together (Bonferroni).

    Raises:
        SettingError: an effect of 0, fewer than 30 units were measured, or their metric does not vary.
    """
    if effect == 0:
        raise SettingError("an effect of 0 is seen by no number of units; give the smallest one that matters")
    found = _solved(column, "n_obs", alpha / (arms - 1), power=power, effect_size=effect)
    return _of_all_arms(found, arms)


def smallest_effect(column: Column, units: int, arms: int = 2, power: float = 0.8, alpha: float = 0.05) -> Power:
    """The effect that so many units show; otherwise as `units_needed`.

    Raises:
        SettingError: fewer than 30 units per arm, fewer than 30 were measured, or their metric does not vary.
    """
    if units < FEWEST * arms:
        raise SettingError(f"{units} units in {arms} arms are too few to say anything; give at least {FEWEST * arms}")
    found = _solved(column, "effect_size", alpha / (arms - 1), power=power, n_obs=round(2 * units / arms))
    return _of_all_arms(found, arms)


def _solved(column: Column, what: str, alpha: float, **known: Any) -> Any:
    if len(column) < FEWEST:
        raise SettingError(f"{len(column)} units with a value are too few to plan by; give at least {FEWEST}")
    column = filled([column])[0]
    told = aggregates(column)
    if column.constant:
        raise SettingError("the metric has the same value for every unit, so nothing says how many are needed")
    names = [name if name in column.named() else None for name in NAMES]
    return RatioOfMeans(*names, use_t=False, alpha=alpha, **known).solve_power_from_aggregates(told, what)[0]


def _of_all_arms(found: Any, arms: int) -> Power:
    relative = float(found.rel_effect_size)
    return Power(
        effect=float(found.effect_size),
        relative=relative if math.isfinite(relative) else None,
        units=math.ceil(found.n_obs / 2 * arms),
        power=float(found.power),
    )
