"""The interval of every look: its equation, where it is narrowest, and that looking does not break it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trimtab.offline.experiments.sequence import half_width

LOOKS = np.linspace(0.05, 1, 20)


@pytest.mark.parametrize("units", [50, 5_000, 500_000])
@pytest.mark.parametrize("alpha", [0.05, 0.025])
def test_at_its_edge_the_mixture_of_robbins_is_one_over_alpha(units: int, alpha: float) -> None:
    """exp(S²ρ² / 2(Nρ² + 1)) / √(Nρ² + 1), S the sum of N standardised values, is the martingale behind it."""
    planned = 10_000
    rho2 = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / planned
    edge = units * float(half_width(1 / math.sqrt(units), units, planned, alpha))
    mixture = math.exp(edge**2 * rho2 / 2 / (units * rho2 + 1)) / math.sqrt(units * rho2 + 1)
    assert mixture == pytest.approx(1 / alpha)


def test_it_is_narrowest_at_the_planned_size() -> None:
    """Of all numbers that may be planned for, close to none gives a narrower one after 10,000 units than 10,000."""
    widths = [float(half_width(0.01, 10_000, planned)) for planned in np.geomspace(1_000, 100_000, 201)]
    assert min(widths) > 0.999 * float(half_width(0.01, 10_000, 10_000))
    assert float(half_width(0.01, 10_000, 10_000)) == pytest.approx(1.55 * 1.96 * 0.01, rel=0.01)


def test_twenty_looks_do_not_break_it_and_break_the_fixed_interval() -> None:
    rng = np.random.default_rng(0)
    units = (1000 * LOOKS).astype(int)
    paths = rng.normal(size=(4000, 1000)).cumsum(axis=1)[:, units - 1] / units
    errors = 1 / np.sqrt(units)
    assert (np.abs(paths) > half_width(errors, units, 1000)).any(axis=1).mean() < 0.05
    assert (np.abs(paths) > 1.96 * errors).any(axis=1).mean() > 0.2


def test_an_effect_is_found() -> None:
    rng = np.random.default_rng(0)
    units = (1000 * LOOKS).astype(int)
    paths = (rng.normal(size=(500, 1000)) + 0.15).cumsum(axis=1)[:, units - 1] / units
    assert (paths > half_width(1 / np.sqrt(units), units, 1000)).any(axis=1).mean() > 0.9
