"""A part of a data set that stands for the whole: drawn by chance, with the same share of each type."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import SettingError
from .samples import Sample, SampleFile

__all__ = ["chosen", "stratified"]


def chosen(file: SampleFile, draw: int | None = None, part: tuple[int, int] | None = None, seed: int = 0) -> SampleFile:
    """The file with `draw` of its samples, by seed, and of these every n-th from the i-th on, for the part (i, n).

    A drawn sample stands for as many of its type as the file has for each that was drawn.

    Raises:
        SettingError: a draw below 1; a part that is not one of 1 to n, or would be empty.
    """
    if draw is not None and draw < 1:
        raise SettingError(f"a draw of {draw} samples leaves nothing to do; give 1 or more")
    samples = file.samples if draw is None else _weighted(stratified(file.samples, draw, seed), file.samples)
    if part is not None:
        number, count = part
        if not 1 <= number <= count <= len(samples):
            raise SettingError(
                f"part {number} of {count} of {len(samples):,} samples asked for; give i/n with i from 1 to n, and no "
                "more parts than samples"
            )
        samples = samples[number - 1 :: count]
    return replace(file, samples=tuple(samples))


def stratified(samples: Sequence[Sample], limit: int, seed: int = 0) -> tuple[Sample, ...]:
    """`limit` samples in their old order, or all where there are no more.

    Each type gets its share of `limit`, rounded so that the sum is right (largest remainders), and at least one sample
    where `limit` is enough for that. One seed gives the same samples again.
    """
    if limit >= len(samples):
        return tuple(samples)
    random = np.random.default_rng(seed)
    groups: dict[str, list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        groups[sample.type].append(number)
    kept: list[int] = []
    for name, size in _sizes({name: len(group) for name, group in groups.items()}, limit).items():
        kept += random.permutation(groups[name])[:size].tolist()
    return tuple(samples[number] for number in sorted(kept))


def _weighted(drawn: Sequence[Sample], every: Sequence[Sample]) -> tuple[Sample, ...]:
    there, left = (Counter(one.type for one in samples) for samples in (every, drawn))
    return tuple(replace(one, weight=there[one.type] / left[one.type]) for one in drawn)


def _sizes(counts: dict[str, int], limit: int) -> dict[str, int]:
    total, least = sum(counts.values()), int(limit >= len(counts))
    exact = {name: limit * count / total for name, count in counts.items()}
    sizes = {name: max(least, int(share)) for name, share in exact.items()}
    by_lack = sorted(counts, key=lambda name: (sizes[name] - exact[name], name))
    while sum(sizes.values()) < limit:
        name = next(one for one in by_lack if sizes[one] < counts[one])
        sizes[name] += 1
        by_lack.append(by_lack.pop(by_lack.index(name)))
    while sum(sizes.values()) > limit:
        sizes[max(sizes, key=lambda name: (sizes[name], name))] -= 1
    return sizes
