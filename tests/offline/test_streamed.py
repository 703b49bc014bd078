"""Mini-batch K-Means: what holds of K-Means holds of it, with one block of states in memory."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.offline.test_dictionary import clouds
from tests.offline.worlds import states_of, write_data
from trimtab.offline.concepts import kmeans
from trimtab.offline.concepts.mini_batch import mini_batch_kmeans
from trimtab.offline.concepts.quality import residual
from trimtab.offline.errors import DataError, SettingError
from trimtab.offline.models import Reader
from trimtab.offline.states import LayerStates, Predicts, load_states, represent
from trimtab.offline.states.store import ShardedStates


def cut(states: LayerStates, *at: int) -> list[LayerStates]:
    """The same states in several blocks."""
    edges = [0, *sorted(at), len(states.values)]
    return [states_of(states.values[a:b], states.labels[a:b]) for a, b in pairwise(edges) if b > a]


def shuffled(seed: int = 0, spread: float = 1.0) -> LayerStates:
    states = clouds(seed, spread)
    order = np.random.default_rng(seed).permutation(len(states.values))
    return states_of(states.values[order], [states.labels[i] for i in order])


def test_counts_labels_and_purity_are_those_of_the_states_nearest_to_each_centre() -> None:
    states = shuffled(spread=3.0)
    made = mini_batch_kmeans(cut(states, 50, 51, 90), k=5, seed=3)
    nearest = made.nearest(states.values)
    for concept in range(len(made.labels)):
        words = Counter(np.array(states.labels)[nearest == concept].tolist())
        assert made.counts[concept] == words.total()
        assert words[made.labels[concept]] == max(words.values())
        assert made.purity[concept] == pytest.approx(max(words.values()) / words.total())
    assert list(made.counts) == sorted(made.counts, reverse=True)
    assert made.counts.sum() == len(states.values)
    assert (made.method, made.provenance.seed) == ("mini-batch-kmeans", 3)
    assert made.provenance.samples == {"no": 30, "three": 20, "two": 10, "yes": 60}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 119), max_size=8), st.integers(0, 50))
def test_however_states_are_cut_into_blocks_it_is_nearly_as_good_as_kmeans(at: list[int], seed: int) -> None:
    states = shuffled(1)
    ours = residual(mini_batch_kmeans(cut(states, *at), 4, seed, sample=60), [states]).squares
    assert ours <= 1.05 * residual(kmeans(states, 4), [states]).squares


def test_blocks_that_each_hold_one_cloud_still_give_all_clouds() -> None:
    states = clouds()
    made = mini_batch_kmeans(cut(states, 30, 60, 90), 4)
    assert list(made.counts) == [30, 30, 30, 30]
    assert Counter(made.labels) == {"yes": 2, "no": 1, "three": 1}


def test_a_pass_brings_the_centres_to_the_means_of_all_states_and_not_of_the_sample() -> None:
    rng = np.random.default_rng(0)
    states = states_of(rng.normal(size=(4000, 3)) + np.repeat([[-9, 0, 0], [9, 0, 0]], 2000, axis=0), ["a"] * 4000)
    made = mini_batch_kmeans(cut(states, *range(500, 4000, 500)), 2, sample=100)
    means = [states.values[made.nearest(states.values) == concept].mean(axis=0) for concept in range(2)]
    np.testing.assert_allclose(made.centroids, means, atol=0.02)  # those of the sample are about 0.14 away


def test_equal_seeds_give_equal_bits() -> None:
    blocks = cut(shuffled(spread=4.0), 40, 80)
    first, again, other = (mini_batch_kmeans(blocks, 8, seed, sample=50) for seed in (1, 1, 2))
    assert first.centroids.tobytes() == again.centroids.tobytes()
    assert first.labels == again.labels
    assert first.centroids.tobytes() != other.centroids.tobytes()


def test_a_centre_that_no_row_is_nearest_to_is_left_out() -> None:
    states = states_of(np.repeat(np.eye(3), 4, axis=0), ["a"] * 4 + ["b"] * 4 + ["c"] * 4)
    made = mini_batch_kmeans(cut(states, 5), k=7)
    assert sorted(made.labels) == ["a", "b", "c"]
    assert list(made.counts) == [4, 4, 4]


class Watched:
    """Blocks made on the fly, which count how many of them are alive at once."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.most = 0

    def __iter__(self) -> Iterator[LayerStates]:
        alive: list[weakref.ref[LayerStates]] = []
        for seed in range(self.blocks):
            block = shuffled(seed)
            alive.append(weakref.ref(block))
            self.most = max(self.most, sum(one() is not None for one in alive))
            yield block


def test_no_more_than_the_last_and_the_next_block_are_in_memory() -> None:
    blocks = Watched(12)
    made = mini_batch_kmeans(blocks, 4, sample=100)
    assert made.counts.sum() == 12 * 120
    assert blocks.most <= 2


def test_blocks_that_come_only_once_are_refused() -> None:
    with pytest.raises(DataError, match="120 states came the first time and 0 the last"):
        mini_batch_kmeans(iter([clouds()]), 4)
    with pytest.raises(DataError, match="no states"):
        mini_batch_kmeans([], 4)


@pytest.mark.parametrize(("k", "n_init", "message"), [(0, 10, "1 to 120"), (121, 10, "1 to 120"), (4, 9, "n_init")])
def test_what_kmeans_refuses_is_refused(k: int, n_init: int, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        mini_batch_kmeans(cut(clouds(), 60), k, n_init=n_init)


@pytest.fixture(scope="module")
def reps(llava_reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """States of layers 1 and 3 in three shards."""
    folder = tmp_path_factory.mktemp("reps")
    represent(llava_reader, write_data(folder / "data", 40, True), Predicts(), [1, 3], folder / "reps", batch_size=2)
    return folder / "reps"


def test_shards_hold_the_states_that_are_loaded_at_once(reps: Path) -> None:
    sharded, loaded = ShardedStates(reps, 3), load_states(reps, 3)
    for _ in range(2):
        blocks = list(sharded)
        assert len(blocks) > 1
        assert b"".join(block.values.tobytes() for block in blocks) == loaded.values.tobytes()
        assert sum((block.labels for block in blocks), ()) == loaded.labels
        assert sum((block.sample_ids for block in blocks), ()) == loaded.sample_ids
    assert len(sharded) == len(loaded.values)
    assert mini_batch_kmeans(sharded, 5).counts.sum() == len(sharded)


def test_a_shard_that_was_altered_is_refused_when_it_is_reached(reps: Path) -> None:
    sharded = ShardedStates(reps, 3)
    shard = reps / f"{sharded.manifest.shards[1].name}.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(DataError, match="sha256 differs"):
            mini_batch_kmeans(sharded, 5)
    finally:
        shard.write_bytes(content)
    with pytest.raises(SettingError, match="layer 2 was not kept"):
        ShardedStates(reps, 2)
