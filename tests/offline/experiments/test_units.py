"""From lines to units: who counts, in which arm, with which outcomes, and what is said to be left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.offline.experiments.lines import closing, exposure, exposure_id
from trimtab.offline.errors import DataError
from trimtab.offline.experiments.metrics import LINES, Metric, Rows, column_of, joined, logged
from trimtab.offline.experiments.outcomes import Outcomes
from trimtab.offline.experiments.units import Units, units_of
from trimtab.vectors.experiments import Closing, Exposure

ARMS = ("control", "a08")


def units(exposures: Sequence[Exposure], closings: Sequence[Closing] = ()) -> Units:
    return units_of(exposures, closings, "sweep", "sweep-1", ARMS)


def outcomes(*rows: tuple[int | str, float], name: str = "m", when: float = np.nan) -> Outcomes:
    """Of exposures by number, or of units by name."""
    return Outcomes(
        [exposure_id(one) if isinstance(one, int) else "" for one, _ in rows],
        ["" if isinstance(one, int) else one for one, _ in rows],
        np.full(len(rows), when),
        {name: np.array([value for _, value in rows])},
    )


def values(metric: Metric, of: Units, found: Outcomes) -> dict[str, float]:
    has, column = column_of(metric, of, joined(found, of)[0], logged(of))
    told = column.numerator if column.denominator is None else column.numerator / column.denominator
    return dict(zip(np.array(of.names)[has].tolist(), told.tolist(), strict=True))


def counted(of: Units) -> dict[str, int]:
    return {name.partition(",")[0]: count for name, count in of.counted.items() if count}


def test_a_unit_is_one_row_in_the_arm_that_it_was_assigned_first() -> None:
    found = units([exposure(3, "u", "a08"), exposure(1, "u", "control"), exposure(2, "v", "a08")])
    assert found.names == ["u", "v"]
    assert found.arm.tolist() == [0, 1]
    assert found.per_arm() == [1, 1]
    assert counted(found)["units that met two arms"] == 1


def test_a_unit_that_was_served_something_else_stays_in_its_arm() -> None:
    found = units([exposure(1, "u", "a08", served="none", profile=None), exposure(2, "v", "a08", served="named")])
    assert found.arm.tolist() == [1, 1]
    assert counted(found)["requests that were served something else than their arm"] == 2


def test_forced_requests_and_other_seeds_are_left_out_and_counted() -> None:
    found = units(
        [
            exposure(1, "u"),
            exposure(2, "v", "a08", forced=True),
            exposure(3, "w", seed="earlier"),
            exposure(4, "x", experiment="another"),
        ]
    )
    assert found.names == ["u"]
    assert counted(found) == {
        "requests of other seeds": 1,
        "forced requests": 1,
        "requests that no line closed": 1,
    }


def test_an_exposure_that_was_logged_twice_counts_once() -> None:
    found = units([exposure(1, "u"), exposure(1, "u"), exposure(2, "u")], [closing(1), closing(1), closing(2)])
    assert len(found.exposures) == 2
    assert counted(found) == {"exposures logged twice": 1}
    assert logged(found).of.tolist() == [0, 0]


def test_units_that_met_two_versions_of_a_profile_are_counted() -> None:
    found = units([exposure(1, "u", "a08"), exposure(2, "u", "a08", digest="b" * 64), exposure(3, "v", "a08")])
    assert counted(found)["units that met two versions of a profile"] == 1


def test_an_arm_that_the_plan_does_not_have_is_refused() -> None:
    with pytest.raises(DataError, match=r"a09.*plan of that time"):
        units([exposure(1, "u", "a09")])
    with pytest.raises(DataError, match="no exposure"):
        units([exposure(1, "u", forced=True)])


def test_a_mean_counts_each_unit_once_and_a_ratio_each_line() -> None:
    of = units([exposure(1, "u"), exposure(2, "u"), exposure(3, "v")])
    found = outcomes((1, 1.0), (2, 0.0), (3, 1.0))
    assert values(Metric("m"), of, found) == {"u": 0.5, "v": 1.0}
    _, column = column_of(Metric("m", kind="ratio", denominator=LINES), of, joined(found, of)[0], logged(of))
    assert column.denominator is not None
    assert (column.numerator.sum(), column.denominator.sum()) == (2, 3)


def test_a_unit_without_an_outcome_has_no_value_and_is_no_zero() -> None:
    of = units([exposure(1, "u"), exposure(2, "v", "a08")])
    assert values(Metric("m"), of, outcomes((1, 1.0))) == {"u": 1.0}
    assert values(Metric("m"), of, outcomes((1, 1.0), (2, np.nan))) == {"u": 1.0}


def test_the_last_line_of_an_exposure_counts_and_all_lines_of_a_unit_do() -> None:
    of = units([exposure(1, "u"), exposure(2, "v")])
    found = outcomes((1, 0.0), (1, 1.0), ("v", 0.0), ("v", 1.0))
    assert values(Metric("m"), of, found) == {"u": 1.0, "v": 0.5}
    assert joined(found, of)[1]["outcomes that a later line for the same exposure replaced"] == 1


def test_a_later_line_without_a_metric_leaves_the_earlier_one() -> None:
    of = units([exposure(1, "u")])
    assert values(Metric("m"), of, outcomes((1, 1.0), (1, np.nan))) == {"u": 1.0}


def test_outcomes_of_strangers_and_from_before_the_first_exposure_are_left_out_and_counted() -> None:
    of = units([exposure(1, "u")])
    early = outcomes(("u", 1.0), (99, 1.0), ("stranger", 1.0), when=of.first[0] - 1)
    rows, left = joined(early, of)
    assert len(rows.of) == 0
    assert list(left.values()) == [2, 1, 0]
    assert values(Metric("m"), of, outcomes(("u", 1.0), when=of.first[0] + 1)) == {"u": 1.0}


def test_the_log_holds_metrics_of_its_own() -> None:
    of = units(
        [exposure(1, "u"), exposure(2, "u"), exposure(3, "v"), exposure(4, "w")],
        [closing(1, "abort", generated_tokens=3), closing(2, generated_tokens=5), closing(3, "error")],
    )
    nothing = outcomes((1, 0.0))
    assert values(Metric("generated_tokens"), of, nothing) == {"u": 4.0}
    assert values(Metric("aborted"), of, nothing) == {"u": 0.5, "v": 0.0}
    assert values(Metric("failed"), of, nothing) == {"u": 0.0, "v": 1.0}


def test_an_outcome_goes_before_what_the_log_holds() -> None:
    of = units([exposure(1, "u")], [closing(1, generated_tokens=3)])
    assert values(Metric("generated_tokens"), of, outcomes((1, 7.0), name="generated_tokens")) == {"u": 7.0}


def test_a_metric_that_nothing_holds_is_refused_with_those_that_there_are() -> None:
    of = units([exposure(1, "u")])
    rows = Rows(np.array([0]), {"m": np.ones(1), "m_before": np.ones(1)})
    with pytest.raises(DataError, match=r"no metric 'n'; the outcomes hold m, and the log queue_s"):
        column_of(Metric("n"), of, rows, logged(of))
    with pytest.raises(DataError, match="no metric 'n'"):
        column_of(Metric("m", kind="ratio", denominator="n"), of, rows, logged(of))


def test_the_pre_period_of_a_unit_is_the_mean_of_its_lines() -> None:
    of = units([exposure(1, "u"), exposure(2, "u"), exposure(3, "v")])
    rows = Rows(of.of, {"m": np.ones(3), "m_before": np.array([1.0, 3.0, np.nan])})
    _, column = column_of(Metric("m"), of, rows, logged(of))
    assert column.before is not None
    np.testing.assert_equal(column.before, [2.0, np.nan])


def test_the_first_units_are_those_that_came_first() -> None:
    every = units([exposure(1, "u"), exposure(2, "v", "a08"), exposure(3, "u"), exposure(4, "w")])
    first = every.upto(2)
    assert first.names == ["u", "v"]
    assert [one.exposure_id for one in first.exposures] == [exposure_id(i) for i in (1, 2, 3)]
    assert first.of.tolist() == [0, 1, 0]
