"""Mini-batch K-Means over states that never are in memory together (docs/method.md §2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from trimtab.vectors import ConceptDictionary
from trimtab.vectors.nearest import nearest
from trimtab.vectors.states import StatesManifest

from ..errors import DataError
from ..progress import begins
from ..progress import progress as bar
from ..states.store import Float32, LayerStates, ShardedStates
from .kmeans import best_clusters, check_k
from .labels import assemble, by_size, tally

__all__ = ["mini_batch_kmeans"]

SAMPLE = 10_000
"""How many states are looked at for the first centres: 160 MB at a hidden size of 4096."""
_SAMPLE_PER_CONCEPT = 50


def mini_batch_kmeans(
    blocks: Iterable[LayerStates],
    k: int = 20,
    seed: int = 0,
    n_init: int = 10,
    *,
    passes: int = 1,
    sample: int = SAMPLE,
    progress: bool = False,
) -> ConceptDictionary:
    """K-Means for more states than fit into memory: one block at a time moves the centres.

    First a random sample of the states is clustered like in `kmeans`, which gives the first centres. Then
    scikit-learn's MiniBatchKMeans takes the sample and each block as a mini-batch, the blocks `passes` times. The last
    pass assigns every state to its nearest centre, for labels, counts and purity; a centre without a state is left out.
    Equal blocks and seeds give equal bits.

    blocks: such as `ShardedStates`, or a list of one `LayerStates`. They are read passes + 2 times and must come in the
    same order each time. n_init: starts on the sample. sample: its size; at least 50 k states are drawn.

    Raises:
        SettingError: as `kmeans`; DataError: no states at all, or blocks that cannot be gone through again.
    """
    shown = _Shown(blocks, progress)
    layer, manifest, drawn, count = _draw(shown("sample"), max(sample, _SAMPLE_PER_CONCEPT * k), seed)
    check_k(k, count, n_init)
    # What all states have in common is taken away first: beside a large common part scikit-learn's float32 distances
    # would lose the rest. Its KMeans does the same by itself.
    common = drawn.mean(axis=0, dtype=np.float64).astype(np.float32)
    drawn = drawn - common
    centres = best_clusters(drawn, k, seed, n_init, progress=progress).cluster_centers_.astype(np.float32)
    # Reassigning rare centres at random would undo what the starts found, last of all in the last block.
    model = MiniBatchKMeans(k, init=centres, n_init=1, random_state=seed, reassignment_ratio=0)
    with threadpool_limits(limits=1):
        model.partial_fit(drawn)  # scikit-learn wants k states in its first batch; a block may have fewer
        for number in range(passes):
            for block in shown(f"pass {number + 1}"):
                model.partial_fit(block.values - common)
        centres = model.cluster_centers_.astype(np.float32) + common
        tallies = _tallies(shown("assign"), centres)
    if (assigned := sum(words.total() for words in tallies)) != count:
        raise DataError(f"{count:,} states came the first time and {assigned:,} the last; give blocks that come again")
    order = by_size(centres, tallies)
    return assemble(
        centres[order],
        [tallies[concept] for concept in order],
        "mini-batch-kmeans",
        layer=layer,
        manifest=manifest,
        samples=sum(tallies, Counter()),
        seed=seed,
    )


class _Shown:
    """Goes through blocks with a bar, the first time only where it is known how many states they have."""

    def __init__(self, blocks: Iterable[LayerStates], progress: bool) -> None:
        self._blocks, self._progress = blocks, progress
        self._states = len(blocks) if isinstance(blocks, ShardedStates) else 0

    def __call__(self, what: str) -> Iterator[LayerStates]:
        states = 0
        if not self._states:
            begins(what, self._progress)
        with bar(what, self._states, unit="state", show=self._progress and self._states > 0) as advance:
            for block in self._blocks:
                yield block
                states += len(block.values)
                advance(len(block.values))
        self._states = states


def _draw(blocks: Iterable[LayerStates], size: int, seed: int) -> tuple[int, StatesManifest, Float32, int]:
    """Layer and manifest of the states, at most `size` of them, each equally likely, and how many there are.

    The states with the lowest of random keys, in their order: the same ones however the states are cut into blocks.
    """
    rng = np.random.default_rng(seed)
    keys = np.full(size, np.inf)
    source: tuple[int, StatesManifest] | None = None
    count = 0
    for block in blocks:
        if source is None:
            source, kept = (block.layer, block.manifest), np.empty((size, block.values.shape[1]), np.float32)
        count += len(block.values)
        fresh = rng.random(len(block.values))
        lowest = np.argsort(np.concatenate([keys, fresh]), kind="stable")[:size]
        out, new = np.setdiff1d(np.arange(size), lowest), lowest[lowest >= size] - size
        keys[out], kept[out] = fresh[new], block.values[new]
    if source is None:
        raise DataError("there are no states to make a dictionary of; represent more samples, or use another rule")
    return *source, kept[np.argsort(keys)[: min(count, size)]], count


def _tallies(blocks: Iterable[LayerStates], centres: Float32) -> list[Counter[str]]:
    """For each centre the labels of the states that are nearest to it."""
    tallies: list[Counter[str]] = [Counter() for _ in centres]
    for block in blocks:
        assigned = nearest(block.values, centres)
        for total, words in zip(tallies, tally(block.labels, assigned, len(centres)), strict=True):
            total.update(words)
    return tallies
