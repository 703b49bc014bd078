"""How many units, and whether a metric follows the strength: against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trimtab.offline.errors import SettingError
from trimtab.offline.experiments.columns import Column
from trimtab.offline.experiments.dose import trend
from trimtab.offline.experiments.power import smallest_effect, units_needed

Z = {0.05: 1.959963984540054, 0.025: 2.241402727604947}
FOR_80 = 0.8416212335729143


@pytest.mark.parametrize(("arms", "alpha"), [(2, 0.05), (3, 0.025)])
def test_units_are_those_of_the_textbook(arms: int, alpha: float) -> None:
    """2 (z₁₋α/₂ + z₀.₈)² σ² / δ² per arm."""
    values = np.random.default_rng(0).normal(5, 2, 1000)
    found = units_needed(Column(values), 0.3, arms)
    per_arm = 2 * (Z[alpha] + FOR_80) ** 2 * values.var(ddof=1) / 0.3**2
    assert found.units == pytest.approx(arms * per_arm, rel=0.005)
    assert found.relative == pytest.approx(0.3 / values.mean())


def test_the_effect_of_so_many_units_needs_so_many_units() -> None:
    column = Column(np.random.default_rng(0).binomial(1, 0.2, 1000).astype(float))
    found = smallest_effect(column, 6000, 3)
    assert units_needed(column, found.effect, 3).units == pytest.approx(6000, rel=0.01)


def test_a_pre_period_saves_units() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=2000)
    column = Column(0.8 * before + 0.6 * rng.normal(size=2000), None, before)
    saved = units_needed(column, 0.1).units / units_needed(column.without_before(), 0.1).units
    assert saved == pytest.approx(0.36, abs=0.05)


@pytest.mark.parametrize(
    ("column", "effect", "said"),
    [
        (Column(np.arange(10).astype(np.float64)), 1.0, "too few"),
        (Column(np.full(100, 2.0)), 1.0, "same value"),
        (Column(np.arange(100).astype(np.float64)), 0.0, "effect of 0"),
    ],
)
def test_what_nothing_can_be_planned_by_is_refused(column: Column, effect: float, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        units_needed(column, effect)
    with pytest.raises(SettingError, match="too few"):
        smallest_effect(Column(np.arange(100).astype(np.float64)), 50)


def test_a_trend_is_the_regression_on_all_units() -> None:
    rng = np.random.default_rng(0)
    alphas, units = (0.0, 0.4, 0.8, 1.2), (400, 300, 500, 200)
    samples = [rng.normal(1 - 0.5 * alpha, 1, n) for alpha, n in zip(alphas, units, strict=True)]
    errors = [one.std(ddof=1) / math.sqrt(len(one)) for one in samples]
    found = trend(alphas, [one.mean() for one in samples], errors, units)
    assert found is not None
    slope, _ = np.polyfit(np.repeat(alphas, units), np.concatenate(samples), 1)
    assert found.slope == pytest.approx(slope)
    assert found.low < -0.5 < found.high
    assert found.p < 1e-6


def test_no_trend_is_rarely_seen() -> None:
    rng = np.random.default_rng(1)
    errors, units = np.array([0.1, 0.2, 0.05]), (400, 100, 1600)
    found = [trend((0.0, 0.5, 1.0), rng.normal(0, errors).tolist(), errors.tolist(), units) for _ in range(1000)]
    assert 0.03 < np.mean([one is not None and one.p < 0.05 for one in found]) < 0.07


def test_two_strengths_are_no_trend() -> None:
    assert trend((0.0, 0.8), (1.0, 2.0), (0.1, 0.1), (100, 100)) is None
