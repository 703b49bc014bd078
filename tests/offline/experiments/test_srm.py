"""Sample ratio mismatch: a published case, the closed form of two arms, and which part of the traffic is named."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trimtab.offline.experiments.srm import ALARM, mismatch, uneven, where


def test_the_case_of_the_book() -> None:
    """821,588 to 815,482 (Kohavi, Tang, Xu, "Trustworthy Online Controlled Experiments", chapter 3): p = 1.8e-6."""
    assert mismatch((821_588, 815_482), (1, 1)) == pytest.approx(1.8e-6, rel=0.05)


@pytest.mark.parametrize(("observed", "weights"), [((510, 490), (1, 1)), ((95, 905), (1, 9)), ((3, 40), (2, 11))])
def test_two_arms_are_the_square_of_a_normal(observed: tuple[int, int], weights: tuple[int, int]) -> None:
    total, share = sum(observed), weights[0] / sum(weights)
    z = (observed[0] - total * share) / math.sqrt(total * share * (1 - share))
    assert mismatch(observed, weights) == pytest.approx(math.erfc(abs(z) / math.sqrt(2)))


def test_units_that_follow_unequal_weights_raise_no_alarm() -> None:
    rng = np.random.default_rng(0)
    weights = (1, 1, 8)
    counts = rng.multinomial(5000, np.array(weights) / 10, size=4000)
    alarms = np.mean([mismatch(one.tolist(), weights) < ALARM for one in counts])
    assert alarms < 0.003
    assert mismatch((500, 500, 500), weights) < ALARM


def test_no_unit_is_no_mismatch() -> None:
    assert mismatch((0, 0), (1, 1)) == 1


def test_the_replica_that_loses_units_is_named_and_no_other() -> None:
    rng = np.random.default_rng(0)
    arm, replica, day = rng.integers(0, 2, 40_000), rng.integers(0, 4, 40_000), rng.integers(0, 7, 40_000)
    kept = (arm == 0) | (replica != 2) | (rng.random(40_000) > 0.2)
    slices = {
        "replica": [f"r{i}" for i in replica[kept]],
        "day": [str(i) for i in day[kept]],
        "plan": ["one"] * kept.sum(),
    }
    found = where(arm[kept], (1, 1), slices)
    assert [one[:2] for one in found] == [("replica", "r2")]


def test_shares_that_differ_are_seen_and_shares_of_nothing_are_not() -> None:
    assert uneven((100, 200), (1000, 1000)) < 1e-6
    assert uneven((100, 103), (1000, 1000)) > 0.5
    assert uneven((0, 0), (10, 10)) == uneven((10, 10), (10, 10)) == uneven((0, 1), (0, 10)) == 1
