"""What a dictionary is measured by, and how K is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.offline.test_dictionary import clouds
from tests.offline.test_streamed import cut
from tests.offline.worlds import states_of
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.concepts.choose_k import choose_k, knee
from trimtab.offline.concepts.factors import simple
from trimtab.offline.concepts.quality import mean_overlap, own_concepts, residual, sizes
from trimtab.offline.errors import SettingError
from trimtab.offline.models import Reader


def test_a_concept_for_every_row_leaves_nothing_and_a_concept_of_zero_leaves_all() -> None:
    states = states_of([[3, 0], [0, 4]], ["a", "b"])
    assert residual(class_means(states), [states]) == (0, 0)
    zero = class_means(states_of([[3, 4], [-3, -4]], ["a", "a"]))
    assert residual(zero, [states]) == (25, 1)
    assert residual(zero, [states_of([[0, 0]], ["a"])]) == (0, 0)


def test_the_residual_of_kmeans_is_its_inertia_however_the_states_are_cut() -> None:
    states = clouds(spread=2)
    made = kmeans(states, 4)
    inertia = np.square(states.values - made.centroids[made.nearest(states.values)]).sum()
    for blocks in ([states], cut(states, 1, 50, 51)):
        left = residual(made, blocks)
        assert left.squares == pytest.approx(inertia, rel=1e-5)
        assert left.error == pytest.approx(np.sqrt(inertia / np.square(states.values).sum()), rel=1e-5)


def test_mean_overlap_takes_every_ordered_pair_of_different_concepts() -> None:
    assert mean_overlap([("a", "b"), ("b",), ("c", "d")]) == pytest.approx((50 + 100) / 6)
    assert mean_overlap([("a",), ("a",)]) == 100
    assert mean_overlap([("a",)]) == 0


def test_sizes_and_words_with_a_concept_of_their_own() -> None:
    states = clouds()
    made = kmeans(states, 4)
    assert sizes(made) == {"smallest concept": 30, "largest concept": 30, "empty concepts": 0}
    assert own_concepts(made) == 0.5  # "yes" and "no"; "three" is two thirds of its concept, "two" has none
    assert own_concepts(class_means(states)) == 1
    twice = simple(states_of([[2.0, 0], [2.0, 0], [0, 1.0]], ["a", "a", "b"]), 3)
    assert sizes(twice)["empty concepts"] == 1


def test_the_knee_is_where_the_fall_ends() -> None:
    assert knee([5, 10, 20, 40, 80], [1.0, 0.4, 0.35, 0.32, 0.3]) == 10
    assert knee([1, 2, 3], [3.0, 2.0, 1.0]) is None  # a straight line
    assert knee([1, 2, 3], [3.0, 2.9, 1.0]) is None  # above it
    assert knee([1, 2, 3], [1.0, 0.5, 1.0]) is None  # no fall
    assert knee([1, 2], [2.0, 1.0]) is None


@given(st.floats(0.1, 9), st.floats(-5, 5), st.integers(1, 50))
def test_the_knee_does_not_depend_on_units(scale: float, shift: float, factor: int) -> None:
    ks, errors = [5, 10, 20, 40], [1.0, 0.45, 0.4, 0.3]
    assert knee(ks, errors) == 10
    assert knee([factor * k for k in ks], [scale * error + shift for error in errors]) == factor * 10


def test_a_curve_has_one_value_for_each_k_and_finds_the_clouds() -> None:
    states = clouds()
    found = choose_k([states], [8, 2, 4, 2, 1], lambda k: kmeans(states, k))
    assert found.k == (1, 2, 4, 8)
    assert found.chosen == 4
    assert {len(curve) for curve in found.curves.values()} == {4}
    error = found.curves["reconstruction error"]
    assert list(error) == sorted(error, reverse=True)
    assert found.curves["smallest concept"][:3] == (120, 60, 30)
    assert found.curves["labels with a concept of their own"][2] == 0.5
    assert "mean pairwise word overlap" not in found.curves
    with pytest.raises(SettingError, match="no k given"):
        choose_k([states], [], lambda k: kmeans(states, k))


def test_words_are_compared_where_there_is_a_model(llama_reader: Reader) -> None:
    states = states_of(np.random.default_rng(0).normal(size=(30, 32)), ["a"] * 30)
    found = choose_k([states], [2, 5], lambda k: kmeans(states, k), model=llama_reader)
    overlaps = found.curves["mean pairwise word overlap"]
    assert all(0 <= overlap <= 100 for overlap in overlaps)
