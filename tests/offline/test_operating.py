"""The operating point, the null control and the stability of vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.offline.test_dictionary import clouds
from tests.offline.worlds import states_of
from trimtab.offline.concepts import class_means
from trimtab.offline.errors import SettingError
from trimtab.offline.steering import coarse_profile, fine_profile
from trimtab.offline.steering.null_control import random_control
from trimtab.offline.steering.operating_point import MOST_COLLATERAL, Point, best, front
from trimtab.offline.steering.stability import cosines, draws
from trimtab.vectors import AlphaRange
from trimtab.vectors.profile import CoarseLayer, FineLayer

SHARES = st.sampled_from([0.0, 0.02, 0.04, 0.3, 0.5, 1.0])
POINTS = st.lists(st.builds(Point, st.sampled_from([0.5, 1.0, 2.0]), SHARES, SHARES), min_size=1, max_size=12)


def beats(a: Point, b: Point) -> bool:
    return (
        a.gained >= b.gained and a.collateral <= b.collateral and (a.gained, a.collateral) != (b.gained, b.collateral)
    )


@given(POINTS)
def test_a_point_is_on_the_front_or_equalled_there_just_when_no_other_beats_it(points: list[Point]) -> None:
    found = {(point.gained, point.collateral) for point in front(points)}
    for point in points:
        assert ((point.gained, point.collateral) in found) != any(beats(other, point) for other in points)


@given(POINTS)
def test_the_operating_point_lies_on_the_front(points: list[Point]) -> None:
    assert best(points) in front(points)


@given(POINTS)
def test_a_looser_limit_never_gains_less_and_the_tight_one_is_kept(points: list[Point]) -> None:
    chosen = best(points)
    if min(point.collateral for point in points) <= MOST_COLLATERAL:
        assert chosen.collateral <= MOST_COLLATERAL
        assert best(points, 1.0).gained >= chosen.gained


def test_the_null_of_a_coarse_profile_keeps_the_norm_and_loses_the_direction() -> None:
    profile = coarse_profile("steer", [clouds()], {"yes": "no"}, alpha=AlphaRange(max=7))
    null = random_control(profile, "null", seed=3)
    before, after = (one.tensors[2] for one in (profile, null))
    assert isinstance(before, CoarseLayer)
    assert isinstance(after, CoarseLayer)
    assert np.linalg.norm(after.vector) == pytest.approx(np.linalg.norm(before.vector), rel=1e-5)
    assert not np.allclose(after.vector, before.vector)
    assert null.manifest.alpha == profile.manifest.alpha
    assert random_control(profile, "null", seed=3).digest == null.digest
    assert random_control(profile, "null", seed=4).digest != null.digest


def test_the_null_of_a_fine_profile_keeps_centroids_gate_norms_and_empty_rows() -> None:
    states = clouds()
    profile = fine_profile("steer", [(states, class_means(states))], {"yes": "no"})
    null = random_control(profile, "null", seed=0)
    before, after = (one.tensors[2] for one in (profile, null))
    assert isinstance(before, FineLayer)
    assert isinstance(after, FineLayer)
    assert np.array_equal(after.centroids, before.centroids)
    norms = [np.linalg.norm(one.vectors, axis=1) for one in (before, after)]
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-5)
    assert norms[0].any()
    assert null.manifest.gate == profile.manifest.gate
    assert not np.allclose(after.vectors, before.vectors)


def test_random_directions_have_nothing_to_do_with_the_one_they_replace() -> None:
    states = clouds()
    profile = coarse_profile("steer", [states], {"yes": "no"})
    size = profile.manifest.base_model.hidden_size
    cosine = []
    for seed in range(200):
        tensors = random_control(profile, "null", seed).tensors[2]
        assert isinstance(tensors, CoarseLayer)
        cosine.append(float(tensors.vector[0] / np.linalg.norm(tensors.vector)))
    assert abs(np.mean(cosine)) < 4 / np.sqrt(200 * size)


def test_draws_are_disjoint_equal_in_size_and_seeded() -> None:
    states = states_of(np.eye(25), ["yes"] * 15 + ["no"] * 10)  # a vector's entries tell which states it is made of
    vectors = draws(states, {"yes"}, {"no"}, 4, seed=0)
    assert len(vectors) == 5
    used = [set(np.flatnonzero(vector.values).tolist()) for vector in vectors]
    assert len(set.union(*used)) == sum(map(len, used)) == 20
    for vector in vectors:
        assert sorted(vector.values[vector.values != 0].tolist()) == [-0.5, -0.5, 0.5, 0.5]
        assert not (vector.values[:15] > 0).any()
    assert draws(states, {"yes"}, {"no"}, 4, seed=0) == vectors
    assert draws(states, {"yes"}, {"no"}, 4, seed=1) != vectors


def test_larger_draws_agree_more() -> None:
    states = clouds(spread=6.0)
    small, large = (np.mean(cosines(draws(states, {"yes"}, {"no"}, size, seed=0))) for size in (2, 30))
    assert small < large


@pytest.mark.parametrize("size", [0, 3, 80])
def test_draws_that_cannot_be_had_are_refused(size: int) -> None:
    with pytest.raises(SettingError):
        draws(clouds(), {"yes"}, {"no"}, size, seed=0)
