from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from tests.offline.test_pairs import read_as
from tests.offline.worlds import states_of
from trimtab.offline.concepts import kmeans
from trimtab.offline.concepts.factors import pca
from trimtab.offline.errors import SettingError
from trimtab.offline.shift.controls import control_cosines
from trimtab.offline.shift.deltas import recovered, shifts_of
from trimtab.offline.shift.profile import profile_of_shift
from trimtab.offline.states import LayerStates
from trimtab.offline.states.paired import Pairs, pair_states
from trimtab.offline.statistics import correlation, mean
from trimtab.vectors.profile import CoarseLayer, FineLayer

Float64 = npt.NDArray[np.float64]

K, D = 5, 24


def clouds(seed: int = 0, each: int = 30) -> LayerStates:
    """K clouds of states around directions of their own, with a part that all share."""
    rng = np.random.default_rng(seed)
    centres = 6 * rng.normal(size=(K, D)) + 10 * np.eye(D)[0]
    return states_of(
        np.repeat(centres, each, axis=0) + rng.normal(size=(K * each, D)),
        [label for label in "abcde" for _ in range(each)],
    )


def moved(states: LayerStates, by: npt.ArrayLike) -> LayerStates:
    """The states of a fine-tune that moved each state by `by`."""
    made = read_as(states, model={"fingerprint": "sampled-sha256:" + "1" * 64})
    return replace(made, values=(states.values + np.asarray(by)).astype(np.float32))


def each_its_own_way(states: LayerStates, seed: int = 1) -> Pairs:
    rng = np.random.default_rng(seed)
    ways = 6 * rng.normal(size=(K, D))
    own = np.array([ways["abcde".index(label)] for label in states.labels])
    return pair_states(states, moved(states, own + rng.normal(size=own.shape)))


def test_a_constant_shift_is_found_and_wholly_consistent() -> None:
    states, by = clouds(), np.arange(D)
    shifts = shifts_of(pair_states(states, moved(states, by)), kmeans(states, K))
    np.testing.assert_allclose(shifts.deltas, np.tile(by, (K, 1)), atol=1e-4)
    np.testing.assert_allclose(shifts.magnitude, np.linalg.norm(by), rtol=1e-4)
    np.testing.assert_allclose(shifts.consistency, 1, atol=1e-6)
    np.testing.assert_allclose(shifts.pairwise, 1, atol=1e-6)
    assert shifts.counts.sum() == len(states.values)


def test_with_kmeans_the_shifted_concept_is_the_mean_of_the_fine_tunes_states() -> None:
    pairs = each_its_own_way(clouds())
    dictionary = kmeans(pairs.a, K)
    shifts = shifts_of(pairs, dictionary)
    assigned = dictionary.nearest(pairs.a.values)
    for k in range(K):
        np.testing.assert_allclose(shifts.shifted()[k], pairs.b.values[assigned == k].mean(axis=0), atol=1e-4)
    assert np.array_equal(shifts.shifted(0), shifts.concepts)
    np.testing.assert_allclose(shifts.shifted(3) - shifts.concepts, 3 * shifts.deltas)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), count=st.integers(2, 12))
def test_pairwise_consistency_is_the_mean_over_all_pairs(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    states = states_of(rng.normal(size=(count, 4)), ["a"] * count)
    pairs = pair_states(states, moved(states, rng.normal(size=(count, 4))))
    unit = pairs.shifts / np.linalg.norm(pairs.shifts, axis=1, keepdims=True)
    every = [float(unit[m] @ unit[n]) for m in range(count) for n in range(count) if m != n]
    shifts = shifts_of(pairs, kmeans(states, 1))
    assert shifts.pairwise[0] == pytest.approx(np.mean(every))
    delta = shifts.deltas[0] / np.linalg.norm(shifts.deltas[0])
    assert shifts.consistency[0] == pytest.approx(np.mean(unit @ delta))


def test_a_model_against_itself_moves_nothing_and_recovers_nothing() -> None:
    states = clouds()
    dictionary = kmeans(states, K)
    shifts = shifts_of(pair_states(states, states), dictionary)
    assert not shifts.deltas.any()
    found = recovered(shifts, dictionary)
    assert found.match.tolist() == list(range(K))
    np.testing.assert_allclose(found.before, 1)
    np.testing.assert_allclose(found.recovery, 0, atol=1e-12)


def test_recovery_is_the_gain_in_cosine_over_what_it_was_before() -> None:
    pairs = each_its_own_way(clouds())
    shifts = shifts_of(pairs, kmeans(pairs.a, K))
    found = recovered(shifts, kmeans(pairs.b, K))
    assert (found.after > found.before).all()
    assert found.after.min() > 0.99
    np.testing.assert_allclose(found.recovery, (found.after - found.before) / found.before)
    assert (recovered(shifts, kmeans(pairs.b, K), alpha=0).recovery == 0).all()


def test_a_concept_that_pointed_away_has_no_recovery() -> None:
    states = states_of([[1.0, 0.0], [1.0, 0.1]], ["a", "a"])
    turned = moved(states, -2 * states.values)
    found = recovered(shifts_of(pair_states(states, turned), kmeans(states, 1)), kmeans(turned, 1))
    assert found.before[0] < 0 < found.after[0]
    assert np.isnan(found.recovery[0])


def test_a_dictionary_of_another_model_or_layer_is_refused() -> None:
    states = clouds()
    pairs = pair_states(states, moved(states, 1))
    for other in (kmeans(pairs.b, K), replace(kmeans(states, K), layer=1)):
        with pytest.raises(SettingError, match="must be of one model and layer"):
            shifts_of(pairs, other)
        with pytest.raises(SettingError, match="must be of one model and layer"):
            profile_of_shift("x", pairs, other)


def held_out(pairs: Pairs) -> dict[str, float]:
    fit, rest = pairs.halves(0)
    shifts = shifts_of(fit, kmeans(fit.a, K))
    found = control_cosines(fit, shifts, kmeans(fit.b, K), kmeans(rest.b, K), seed=0)
    return {name: float(values.mean()) for name, values in found.items()}


def test_where_each_concept_moves_its_own_way_only_its_own_shift_reaches_the_match() -> None:
    means = held_out(each_its_own_way(clouds(each=60)))
    others = [means[name] for name in ("no shift", "global mean", "shuffled", "random clusters")]
    assert means["per concept"] > max(others) + 0.1
    assert means["ceiling"] > 0.99


def test_where_all_move_alike_the_global_mean_does_as_well_as_each_concepts_own_shift() -> None:
    states = clouds(each=60)
    means = held_out(pair_states(states, moved(states, 20 * np.eye(D)[3])))
    for name in ("global mean", "shuffled", "random clusters"):
        assert means[name] == pytest.approx(means["per concept"], abs=1e-3)
    assert means["no shift"] < means["per concept"] - 0.05


def test_controls_do_not_see_a_direction_that_all_states_share() -> None:
    pairs = each_its_own_way(clouds())
    common = 50 * np.eye(D)[1]
    shifted = Pairs(moved(pairs.a, common), moved(pairs.b, common))
    assert held_out(shifted) == pytest.approx(held_out(pairs), abs=1e-3)


def test_random_clusters_move_by_the_global_mean_and_shuffled_ones_by_anothers_shift() -> None:
    fit, rest = each_its_own_way(clouds(each=200)).halves(0)
    shifts = shifts_of(fit, kmeans(fit.a, 2))
    learned = kmeans(fit.b, 2), kmeans(rest.b, 2)
    found = control_cosines(fit, shifts, *learned, seed=0)
    swapped = control_cosines(fit, replace(shifts, deltas=shifts.deltas[::-1]), *learned, seed=0)
    np.testing.assert_allclose(found["shuffled"], swapped["per concept"])
    np.testing.assert_allclose(found["random clusters"], found["global mean"], atol=0.02)
    assert np.abs(found["shuffled"] - found["global mean"]).max() > 0.1


def test_equal_seeds_give_equal_controls() -> None:
    pairs = each_its_own_way(clouds())
    assert held_out(pairs) == held_out(pairs)


def test_a_profile_toward_the_fine_tune_moves_each_concept_there_and_the_way_back_is_its_inverse() -> None:
    pairs = each_its_own_way(clouds())
    toward = profile_of_shift("toward", pairs, kmeans(pairs.a, K))
    back = profile_of_shift("back", pairs.swapped(), kmeans(pairs.b, K))
    one, other = toward.tensors[2], back.tensors[2]
    assert isinstance(one, FineLayer)
    assert isinstance(other, FineLayer)
    assert (toward.manifest.base_model.fingerprint, back.manifest.base_model.fingerprint) == (
        "sampled-sha256:" + "0" * 64,
        "sampled-sha256:" + "1" * 64,
    )
    for profile, states in ((toward, pairs.a), (back, pairs.b)):
        tensors, shares = profile.tensors[2], profile.manifest.shares
        assert isinstance(tensors, FineLayer)
        fallen = np.linalg.norm(states.values[:, None] - tensors.centroids, axis=2).argmin(axis=1)
        assert shares is not None
        assert shares[2] == pytest.approx(np.bincount(fallen, minlength=K) / len(fallen))
    arrived = one.centroids + one.vectors
    for k, landed in enumerate(kmeans(pairs.b, K).nearest(arrived)):
        np.testing.assert_allclose(arrived[k], other.centroids[landed], atol=1e-3)
        np.testing.assert_allclose(other.vectors[landed], -one.vectors[k], atol=1e-3)


def test_the_coarse_profile_is_the_mean_shift_and_changes_sign_on_the_way_back() -> None:
    pairs = each_its_own_way(clouds())
    one, other = (profile_of_shift("x", way).tensors[2] for way in (pairs, pairs.swapped()))
    assert isinstance(one, CoarseLayer)
    assert isinstance(other, CoarseLayer)
    np.testing.assert_allclose(one.vector, pairs.shifts.mean(axis=0), atol=1e-5)
    assert np.array_equal(one.vector, -other.vector)


def test_a_fine_profile_needs_concepts_that_are_centres() -> None:
    pairs = each_its_own_way(clouds())
    with pytest.raises(SettingError, match="are no centres"):
        profile_of_shift("x", pairs, pca(pairs.a, K))


def test_a_correlation_has_an_interval_that_holds_it_and_a_seed() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    noisy = x + rng.normal(size=60)
    found = correlation(x, noisy, seed=1)
    assert found is not None
    assert found.value == pytest.approx(np.corrcoef(x, noisy)[0, 1])
    assert found.low < found.value < found.high
    assert found == correlation(x, noisy, seed=1) != correlation(x, noisy, seed=2)
    straight = correlation([*x, np.nan], [*(2 * x), 1], seed=1)
    assert straight is not None
    assert straight.value == pytest.approx(1)
    assert straight.low == pytest.approx(1)
    assert straight.n == 60


def test_no_single_point_decides_a_correlation_of_ranks() -> None:
    x = np.arange(20.0)
    far = np.array([*x[:-1], -1000.0])
    plain, ranked = correlation(x, far, seed=0), correlation(x, far, seed=0, ranks=True)
    assert plain is not None
    assert ranked is not None
    assert ranked.value == pytest.approx(spearmanr(x, far).statistic)
    assert plain.value < 0 < 0.5 < ranked.value


def test_nothing_is_said_of_few_points_or_of_points_that_do_not_vary() -> None:
    assert correlation([1, 2, 3], [1, 2, 3], seed=0) is None
    assert correlation([1, 2, 3, 4], [5, 5, 5, 5], seed=0) is None


def test_the_interval_of_a_mean_narrows_with_more_values() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    few, many = mean(values[:10], seed=0), mean(values, seed=0)
    assert many.value == pytest.approx(values.mean())
    assert many.high - many.low < 0.3 * (few.high - few.low)
