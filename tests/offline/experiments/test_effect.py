"""Effects against what closed forms and published tables say, recomputed here without tea-tasting."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from trimtab.offline.experiments.columns import Column, per_unit
from trimtab.offline.experiments.effect import FEWEST, against_control, effect

Float64 = npt.NDArray[np.float64]
COUNTS = np.arange(1, 101).astype(np.float64)
CONSTANT = np.asarray(0.1 * COUNTS, np.float64), COUNTS
"""A ratio that is 0.1 for every unit."""
Z = 1.959963984540054


def drawn(seed: int, units: int = 400, rate: float = 0.3) -> Column:
    """Requests of each unit, how many of them count, and the same rate before, which is like the later one."""
    rng = np.random.default_rng(seed)
    requests = (1 + rng.poisson(4, units)).astype(np.float64)
    own = np.clip(rate + rng.normal(0, 0.1, units), 0, 1)
    return Column(rng.binomial(requests.astype(int), own).astype(float), requests, own, np.ones(units))


def told(control: Column, arm: Column) -> tuple[float, float, float]:
    found = effect(control, arm)
    assert found is not None
    return found.difference, found.low, found.high


def test_a_mean_has_the_interval_of_two_samples_with_their_own_variances() -> None:
    a, b = drawn(0).numerator, drawn(1, 300).numerator
    error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    difference = b.mean() - a.mean()
    assert told(Column(a), Column(b)) == pytest.approx((difference, difference - Z * error, difference + Z * error))


def test_a_ratio_has_the_variance_of_the_delta_method() -> None:
    a, b = drawn(0), drawn(1, 300)

    def variance(y: Float64, x: Float64) -> float:
        ratio = y.mean() / x.mean()
        (yy, yx), (_, xx) = np.cov(y, x)
        return float((yy - 2 * ratio * yx + ratio**2 * xx) / x.mean() ** 2 / len(y))

    assert a.denominator is not None
    assert b.denominator is not None
    error = math.sqrt(variance(a.numerator, a.denominator) + variance(b.numerator, b.denominator))
    difference = b.numerator.sum() / b.denominator.sum() - a.numerator.sum() / a.denominator.sum()
    found = told(a.without_before(), b.without_before())
    assert found == pytest.approx((difference, difference - Z * error, difference + Z * error))


def test_one_value_per_unit_has_the_mean_and_the_variance_of_the_ratio() -> None:
    a, b = (one.without_before() for one in (drawn(0), drawn(1)))
    found = effect(a, b)
    assert found is not None
    one, other = (per_unit(side.numerator, side.denominator) for side in (a, b))
    assert other.mean() - one.mean() == pytest.approx(found.difference)
    assert one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other) == pytest.approx(found.error**2)


def test_requests_of_a_unit_do_not_count_as_units() -> None:
    """Written down ten times each, the same units say no more than before."""
    a, b = drawn(0).without_before(), drawn(1).without_before()
    many = [Column(10 * one.numerator, 10 * one.denominator) for one in (a, b) if one.denominator is not None]
    assert told(*many) == pytest.approx(told(a, b))


def test_a_pre_period_narrows_the_interval_by_what_it_explains_and_moves_no_expectation() -> None:
    rng = np.random.default_rng(3)
    differences, plain = [], []
    for _ in range(200):
        before = rng.normal(size=(2, 200))
        after = 0.8 * before + 0.6 * rng.normal(size=(2, 200))  # the correlation is 0.8
        found = effect(*(Column(y, None, x) for y, x in zip(after, before, strict=True)))
        assert found is not None
        differences.append(found.difference)
        plain.append(after[1].mean() - after[0].mean())
        assert found.explained == pytest.approx(0.64, abs=0.15)
    assert abs(np.mean(differences)) < 4 * 0.6 * math.sqrt(2 / 200 / 200)
    assert np.var(differences) / np.var(plain) == pytest.approx(0.36, abs=0.12)


def test_a_pre_period_narrows_the_joint_intervals_too() -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(size=(3, 500))
    after = 0.8 * before + 0.6 * rng.normal(size=(3, 500))
    control, *arms = (Column(y, None, x) for y, x in zip(after, before, strict=True))
    widths = [
        [high - low for low, high in against_control(one, dict(zip("ab", others, strict=True))).values()]
        for one, others in ((control, arms), (control.without_before(), [arm.without_before() for arm in arms]))
    ]
    assert np.divide(widths[0], widths[1]) == pytest.approx([0.6, 0.6], abs=0.05)


def test_units_without_a_pre_period_stay_in() -> None:
    a, b = drawn(0), drawn(1)
    assert a.before is not None
    a.before[:150] = np.nan
    found = effect(a, b)
    assert found is not None
    assert found.units == (400, 400)
    assert 0 < found.explained < 0.5


def test_a_pre_period_that_nobody_has_changes_nothing() -> None:
    a, b = drawn(0), drawn(1)
    none = [Column(one.numerator, one.denominator, np.full(400, np.nan), one.before_denominator) for one in (a, b)]
    assert told(*none) == told(a.without_before(), b.without_before())


@pytest.mark.parametrize(("comparisons", "published"), [(2, 2.21), (3, 2.35), (5, 2.51)])
def test_several_arms_have_the_width_of_dunnett_s_table(comparisons: int, published: float) -> None:
    """Table 2b of Dunnett, "New tables for multiple comparisons with a control" (1964): two-sided 5 %, ∞ degrees."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=1000)
    values = (values - values.mean()) / values.std(ddof=1)
    arms = {f"arm {i}": Column(values + 0.1 * i) for i in range(comparisons)}
    found = against_control(Column(values), arms)
    for i, (low, high) in enumerate(found.values()):
        assert (high + low) / 2 == pytest.approx(0.1 * i, abs=1e-6)
        assert (high - low) / 2 / math.sqrt(2 / 1000) == pytest.approx(published, abs=0.02)


def test_the_relative_change_is_the_logarithm_s() -> None:
    a, b = drawn(0).numerator, drawn(1).numerator
    found = effect(Column(a), Column(b))
    assert found is not None
    assert found.relative is not None
    spread = Z * math.sqrt(sum(one.var(ddof=1) / len(one) / one.mean() ** 2 for one in (a, b)))
    ratio = b.mean() / a.mean()
    expected = (ratio - 1, ratio * math.exp(-spread) - 1, ratio * math.exp(spread) - 1)
    assert found.relative == pytest.approx(expected)


def test_a_share_that_never_happened_is_not_known_to_be_zero() -> None:
    never = Column(np.zeros(500))
    found = effect(never, never)
    assert found is not None
    assert found.difference == 0
    assert 3 / 500 * 0.8 < found.high < 3 / 500 * 1.2  # near the rule of three
    assert found.relative is None


@pytest.mark.parametrize("moved", [-1e9, -5.0, -0.3, 0.0, 1e-12])
def test_where_zero_lies_changes_no_difference(moved: float) -> None:
    """Below 0 and near it there is no relative change, and tea-tasting's own would end in an overflow."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 500), rng.normal(0.1, 1, 500)
    found = effect(Column(a + moved), Column(b + moved))
    assert found is not None
    error = math.sqrt(a.var(ddof=1) / 500 + b.var(ddof=1) / 500)
    assert (found.difference, found.error) == pytest.approx((b.mean() - a.mean(), error), rel=1e-6)
    assert found.control == pytest.approx(a.mean() + moved)
    assert found.relative is None


@pytest.mark.parametrize(
    "column",
    [
        Column(np.ones(FEWEST - 1)),
        Column(np.full(100, 7.0)),
        Column(*CONSTANT),
        Column(np.zeros(100), np.zeros(100)),
    ],
    ids=["too few", "all the same", "all the same ratio", "nothing to divide by"],
)
def test_nothing_is_told_of(column: Column) -> None:
    assert effect(column, column) is None
    assert against_control(column, {"arm": column}) == {}
