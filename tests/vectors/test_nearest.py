"""The nearest centroid is the nearest one, however much all centroids and the stream have in common."""

from __future__ import annotations

import numpy as np
import pytest

from tests.vectors.large_common_parts import SIZE, Data, data, exact, kinds, one_coordinate
from trimtab.vectors.nearest import distances, half_squares, nearest, scores

KINDS = dict(kinds())


@pytest.mark.parametrize("kind", KINDS)
def test_no_choice_differs_from_the_exact_one(kind: str) -> None:
    h, centroids = KINDS[kind]
    chosen, margins = exact(h, centroids)
    assert margins.min() < 1  # of scores that differ by hundreds: there are close ones among them
    assert nearest(h, centroids).tolist() == chosen.tolist()


@pytest.mark.parametrize("common", [one_coordinate(3000), np.random.default_rng(1).normal(0, 300, SIZE)])
def test_a_vector_added_to_all_centroids_and_to_the_stream_changes_no_choice(common: np.ndarray) -> None:
    plain = data(0.0, seed=3)
    moved = Data(*((part + common).astype(np.float32) for part in plain))
    _, margins = exact(*plain)
    # The sums are rounded to float32, so that what is asked about is no longer quite the same.
    rounding = 2.0**-24 * np.abs(common).max() * np.abs(plain.centroids).sum(axis=1).max()
    told_apart = margins > rounding
    assert told_apart.mean() > 0.8
    assert (nearest(*moved) == nearest(*plain))[told_apart].all()


def test_the_lowest_index_wins_a_tie() -> None:
    centroids = np.array([[3, 3], [1, 0], [-1, 0], [1, 0]], np.float32)
    assert nearest(np.zeros((1, 2), np.float32), centroids).tolist() == [1]
    copies = np.repeat(KINDS["one coordinate of 3000"].centroids[:3], 2, axis=0)
    assert set(nearest(KINDS["one coordinate of 3000"].h, copies).tolist()) == {0, 2, 4}


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    h, centroids = KINDS["two families"]
    whole = scores(h, centroids)
    monkeypatch.setattr("trimtab.vectors.nearest._BLOCK", 7 * SIZE)
    np.testing.assert_allclose(scores(h, centroids), whole, rtol=1e-12)
    assert scores(h[:0], centroids).shape == (0, 20)


def test_scores_order_centroids_as_their_distances_do() -> None:
    h, centroids = KINDS["one coordinate of 3000"]
    squares = 2 * (half_squares(h)[:, None] - scores(h, centroids))
    for k, centroid in enumerate(centroids):
        apart = distances(h, np.broadcast_to(centroid, h.shape))
        np.testing.assert_allclose(np.sqrt(squares[:, k]), apart, rtol=1e-6)


def test_the_distance_does_not_see_what_both_have_in_common() -> None:
    plain, moved = data(0.0, rows=20), data(one_coordinate(2.0**14), rows=20)
    np.testing.assert_allclose(distances(*moved), distances(*plain), rtol=1e-4)


def test_the_cosine_is_that_of_the_angle_at_the_origin() -> None:
    h = np.array([[0, 7], [2, 0], [0, -3], [1, 1], [0, 0], [1, 0]], np.float32)
    c = np.array([[0, 1], [0, 1], [0, 1], [1, 0], [1, 0], [0, 0]], np.float32)
    half = 1 - np.sqrt(0.5)
    assert distances(h, c, "cosine").tolist() == [0, 1, 2, pytest.approx(half), np.inf, np.inf]
