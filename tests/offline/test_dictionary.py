from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from tests.offline.worlds import states_of
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.concepts.kmeans import best_clusters
from trimtab.offline.errors import SettingError
from trimtab.offline.states import LayerStates


def clouds(seed: int = 0, spread: float = 0.1) -> LayerStates:
    """Four clouds of 30 states: two of "yes", one of "no", one of "three" with a third of "two"."""
    rng = np.random.default_rng(seed)
    centres = np.array([[8, 0, 0], [0, 8, 0], [0, 0, 8], [-8, 0, 0]], np.float32)
    labels = ["yes"] * 60 + ["no"] * 30 + ["three"] * 20 + ["two"] * 10
    return states_of(np.repeat(centres, 30, axis=0) + rng.normal(0, spread, (120, 3)), labels)


def test_a_concept_is_the_mean_of_the_states_nearest_to_it() -> None:
    states = clouds(spread=3.0)
    made = kmeans(states, k=5, seed=3)
    nearest = made.nearest(states.values)
    for concept in range(5):
        members = nearest == concept
        np.testing.assert_allclose(made.centroids[concept], states.values[members].mean(axis=0), atol=1e-5)
        counts = Counter(np.array(states.labels)[members].tolist())
        assert made.counts[concept] == members.sum()
        assert counts[made.labels[concept]] == max(counts.values())
        assert made.purity[concept] == pytest.approx(max(counts.values()) / members.sum())


def test_clouds_are_found_labelled_and_their_purity_told() -> None:
    made = kmeans(clouds(), k=4)
    assert Counter(made.labels) == {"yes": 2, "no": 1, "three": 1}
    assert made.purity[made.labels.index("three")] == pytest.approx(2 / 3)
    assert list(made.counts) == [30, 30, 30, 30]


def test_equal_seeds_give_equal_bits_whatever_the_order_of_concepts_inside() -> None:
    states = clouds(spread=4.0)
    first, again, other = kmeans(states, 8, seed=1), kmeans(states, 8, seed=1), kmeans(states, 8, seed=2)
    assert first.centroids.tobytes() == again.centroids.tobytes()
    assert first.labels == again.labels
    assert first.centroids.tobytes() != other.centroids.tobytes()
    assert list(first.counts) == sorted(first.counts, reverse=True)


def test_a_cluster_that_would_be_empty_is_left_out() -> None:
    states = states_of(np.repeat(np.eye(3), 4, axis=0), ["a"] * 4 + ["b"] * 4 + ["c"] * 4)
    made = kmeans(states, k=7)
    assert sorted(made.labels) == ["a", "b", "c"]
    assert list(made.counts) == [4, 4, 4]


def test_class_means_are_the_means_of_the_classes() -> None:
    states = clouds(spread=3.0)
    made = class_means(states)
    assert made.labels == ("yes", "no", "three", "two")
    for label, centre in zip(made.labels, made.centroids, strict=True):
        np.testing.assert_allclose(centre, states.values[states.of({label})].mean(axis=0), atol=1e-5)
    assert list(made.purity) == [1, 1, 1, 1]


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(24)))
def test_the_order_of_states_does_not_change_class_means(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(24, 3)).astype(np.float32), [*"aaaaabbbbbbbccccccdddddd"]
    straight, shuffled = (
        class_means(states_of(values, labels)),
        class_means(states_of(values[order], [labels[i] for i in order])),
    )
    assert straight.labels == shuffled.labels
    np.testing.assert_allclose(straight.centroids, shuffled.centroids, atol=1e-6)


def test_rare_labels_are_left_out_where_asked() -> None:
    assert class_means(clouds(), min_count=20).labels == ("yes", "no", "three")
    with pytest.raises(SettingError, match="no label has 61 states; the most frequent one has 60"):
        class_means(clouds(), min_count=61)


def test_rows_without_labels_have_clusters_and_no_classes() -> None:
    states = states_of(np.eye(4), [""] * 4)
    assert kmeans(states, 2).labels == ("", "")
    with pytest.raises(SettingError, match="no labels"):
        class_means(states)


@pytest.mark.parametrize("k", [0, -1, 121])
def test_more_concepts_than_states_are_refused(k: int) -> None:
    with pytest.raises(SettingError, match="1 to 120"):
        kmeans(clouds(), k)


def test_too_few_starts_are_refused() -> None:
    with pytest.raises(SettingError, match="n_init is 9"):
        kmeans(clouds(), 4, n_init=9)


def test_a_dictionary_says_where_it_comes_from() -> None:
    states = clouds()
    made = kmeans(states, 4, seed=5)
    assert made.model == states.manifest.request.model
    assert (made.layer, made.method, made.provenance.seed, made.provenance.rule) == (2, "kmeans", 5, "last-prompt")
    assert made.provenance.samples == {"yes": 60, "no": 30, "three": 20, "two": 10}


@pytest.mark.parametrize("seed", range(4))
def test_starts_one_by_one_find_what_scikit_learn_finds_by_itself(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where several starts end in one partition, whose parts only have other numbers."""
    values = clouds(seed, spread=0.5 if seed % 2 else 4.0).values
    ours = best_clusters(values, 4, seed, 10, progress=True)
    with threadpool_limits(limits=1):
        theirs = KMeans(4, n_init=10, random_state=seed).fit(values)
    assert ours.cluster_centers_.tobytes() == theirs.cluster_centers_.tobytes()
    assert ours.labels_.tolist() == theirs.labels_.tolist()
    said = capsys.readouterr().err.splitlines()
    assert (said[0], said[-1]) == ("K-Means, k = 4: 0 of 10 starts, begins", "K-Means, k = 4: 10 of 10 starts, done")


def test_a_later_start_of_the_same_partition_does_not_take_its_place() -> None:
    """scikit-learn stops short of the last step, so two starts may end in one partition with slightly other centres."""
    values = np.random.default_rng(26).normal(size=(500, 2)).astype(np.float32)
    with threadpool_limits(limits=1):
        random = np.random.RandomState(26)
        first, second = (KMeans(4, n_init=1, random_state=random).fit(values) for _ in range(2))
        theirs = KMeans(4, n_init=10, random_state=26).fit(values)
    assert second.inertia_ < first.inertia_
    assert adjusted_rand_score(first.labels_, second.labels_) == 1
    ours = best_clusters(values, 4, 26, 10)
    assert ours.cluster_centers_.tobytes() == theirs.cluster_centers_.tobytes()
    assert ours.cluster_centers_.tobytes() == first.cluster_centers_.tobytes()
