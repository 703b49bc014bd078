"""Semi-NMF, PCA, the largest states, and what it means for a state to activate a concept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from tests.offline.test_dictionary import clouds
from tests.offline.worlds import states_of
from trimtab.offline.concepts import activations, class_means, kmeans, strongest
from trimtab.offline.concepts.factors import pca, semi_nmf, simple
from trimtab.offline.concepts.mini_batch import mini_batch_kmeans
from trimtab.offline.concepts.quality import residual
from trimtab.offline.concepts.semi_nmf import factorise
from trimtab.offline.errors import SettingError
from trimtab.offline.states import LayerStates
from trimtab.offline.steering import fine_profile
from trimtab.vectors import ConceptDictionary

MAKERS: dict[str, Callable[[LayerStates], ConceptDictionary]] = {
    "kmeans": lambda states: kmeans(states, 4),
    "mini-batch-kmeans": lambda states: mini_batch_kmeans([states], 4),
    "class-means": class_means,
    "semi-nmf": lambda states: semi_nmf(states, 4),
    "pca": lambda states: pca(states, 4),
    "simple": lambda states: simple(states, 4),
}


def wide(seed: int = 0, count: int = 60, size: int = 12) -> LayerStates:
    """States around a few directions of both signs."""
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=(count, 5)) @ rng.normal(size=(5, size)) + 0.2 * rng.normal(size=(count, size))
    return states_of(values, [*"abcd"] * (count // 4))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 8))
@example(492, 2)  # nothing holds a coefficient back
def test_the_error_of_semi_nmf_never_grows_and_its_coefficients_are_never_negative(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(30, 7)).astype(np.float32)
    found = factorise(values, rng.integers(0, k, 30), k, most=60)
    assert (found.coefficients >= 0).all()
    assert len(found.errors) > 1
    assert (np.diff(found.errors) <= 1e-9 * found.errors[0]).all()
    rebuilt = np.square(values - found.coefficients @ found.concepts).sum()
    assert found.errors[-1] == pytest.approx(rebuilt)


def test_semi_nmf_rebuilds_states_on_a_line_from_concepts_that_point_both_ways() -> None:
    """Each concept takes back what the other gives: a step longer than the published one swings between them."""
    for seed in range(5):
        values = np.random.default_rng(seed).normal(size=(30, 1)).astype(np.float32)
        found = factorise(values, (values[:, 0] > 0).astype(np.int64), 2, tolerance=0, most=60)
        assert found.errors[-1] < 1e-20 * found.errors[0]


def test_semi_nmf_rebuilds_better_than_kmeans_and_no_better_than_pca_which_is_the_best() -> None:
    states = wide()
    by_kmeans, by_semi_nmf, by_pca = (residual(make(states, 4), [states]).squares for make in (kmeans, semi_nmf, pca))
    assert by_pca <= by_semi_nmf < 0.8 * by_kmeans
    singular = np.linalg.svd(states.values.astype(np.float64), compute_uv=False)
    assert by_pca == pytest.approx(np.square(singular[4:]).sum(), rel=1e-4)


def test_principal_components_are_orthonormal_and_the_states_add_up_to_their_side() -> None:
    states = wide(1)
    made = pca(states, 6)
    assert_allclose(made.centroids @ made.centroids.T, np.eye(6), atol=1e-5)
    assert (activations(made, states.values).sum(axis=0) > 0).all()
    explained = np.linalg.norm(activations(made, states.values), axis=0)
    assert list(explained) == sorted(explained, reverse=True)


def test_pca_does_not_centre() -> None:
    states = states_of(np.random.default_rng(0).normal(0, 0.1, (40, 5)) + 7, ["a"] * 40)
    first = pca(states, 2).centroids[0]
    assert_allclose(first, np.full(5, 1 / np.sqrt(5)), atol=0.02)


def test_directions_that_explain_nothing_are_left_out() -> None:
    flat = states_of(np.outer(np.arange(1, 11), [1.0, 2, 0, 0, 2]), ["a"] * 10)
    assert pca(flat, 3).centroids.shape == (1, 5)
    with pytest.raises(SettingError, match="k is 5; 10 states of size 5 have 1 to 4"):
        pca(flat, 5)


def test_simple_takes_the_states_of_largest_norm() -> None:
    states = states_of([[1, 0], [0, 5], [3, 0], [0, -5]], ["a", "b", "c", "d"])
    made = simple(states, 3)
    assert made.centroids.tolist() == [[0, 5], [0, -5], [3, 0]]
    assert made.labels == ("b", "d", "a")
    assert made.counts.tolist() == [1, 1, 2]


@pytest.mark.parametrize("method", MAKERS)
def test_counts_labels_and_purity_are_of_the_states_that_activate_a_concept_most(method: str) -> None:
    states = wide(2)
    made = MAKERS[method](states)
    assert made.method == made.provenance.method == method
    if method == "class-means":
        return  # its counts follow the labels
    found = strongest(made, states.values)
    assert made.counts.tolist() == np.bincount(found, minlength=len(made.labels)).tolist()
    for concept, label in enumerate(made.labels):
        labels = np.array(states.labels)[found == concept]
        assert made.purity[concept] == pytest.approx(np.mean(labels == label) if len(labels) else 0)
    if method in ("kmeans", "mini-batch-kmeans", "semi-nmf"):
        assert list(made.counts) == sorted(made.counts, reverse=True)


@pytest.mark.parametrize("method", MAKERS)
def test_every_method_gives_equal_bits_again_and_comes_back_from_disk(method: str, tmp_path: Path) -> None:
    made, again = MAKERS[method](wide(3)), MAKERS[method](wide(3))
    assert made.centroids.tobytes() == again.centroids.tobytes()
    back = ConceptDictionary.load(made.save(tmp_path / "d"))
    assert (back.method, back.labels) == (made.method, made.labels)
    values = wide(4).values
    assert activations(back, values).tobytes() == activations(made, values).tobytes()


@pytest.mark.parametrize("method", ["kmeans", "mini-batch-kmeans", "class-means"])
def test_the_strongest_centre_is_the_nearest_as_in_serving(method: str) -> None:
    made, values = MAKERS[method](wide(5)), wide(6).values
    assert strongest(made, values).tolist() == made.nearest(values).tolist()
    distances = np.linalg.norm(values[:, None] - made.centroids, axis=2)
    assert strongest(made, values).tolist() == distances.argmin(axis=1).tolist()


def test_coefficients_of_semi_nmf_are_the_best_that_are_not_negative() -> None:
    made, values = semi_nmf(wide(7), 4), wide(8).values
    v = activations(made, values)
    slope = (v @ made.centroids - values) @ made.centroids.T  # of ½‖h - U v‖²
    assert (v >= 0).all()
    assert (slope > -1e-3).all()  # growing any coefficient would not help
    assert np.abs(slope[v > 0]).max() < 1e-3  # nor would shrinking one that is there
    assert (v == 0).any()


def test_states_too_few_for_semi_nmf_leave_concepts_out() -> None:
    states = states_of(np.repeat(np.eye(3), 4, axis=0), ["a"] * 4 + ["b"] * 4 + ["c"] * 4)
    made = semi_nmf(states, 6)
    assert residual(made, [states]).error < 1e-3
    assert np.isfinite(made.centroids).all()
    assert set(made.labels) - {""} == {"a", "b", "c"}


def test_simple_activates_by_the_cosine_whatever_the_length() -> None:
    made, values = simple(wide(9), 4), wide(10).values
    cosines = activations(made, values)
    assert_allclose(activations(made, 3 * values), cosines, atol=1e-6)
    assert np.abs(cosines).max() <= 1 + 1e-6
    assert activations(made, np.zeros((1, 12))).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("method", MAKERS)
def test_states_of_another_size_are_refused(method: str) -> None:
    with pytest.raises(SettingError, match="states of size 3 were given to a dictionary of size 12"):
        strongest(MAKERS[method](wide()), clouds().values)


@pytest.mark.parametrize("method", ["semi-nmf", "pca", "simple"])
def test_a_fine_profile_is_refused_where_concepts_are_no_centres(method: str) -> None:
    states = clouds(spread=1)
    made = {"semi-nmf": semi_nmf, "pca": pca, "simple": simple}[method](states, 2)
    with pytest.raises(SettingError, match=f"{method} dictionary are no centres.*--method class-means, kmeans"):
        fine_profile("p", [(states, made)], {"yes": "no"})
