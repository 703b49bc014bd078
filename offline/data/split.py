"""A split into train, dev and test by picture: all that is asked of one picture falls into one part.

Type by type, pictures are put in the order of a keyed hash of their names, and dealt out one after the other, each to
the part that lacks the most. So every type has its share in every part, one seed gives one split, and neither another
order of the source nor another number of drawn samples moves a picture. What comes to the source later may move a few.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..errors import DataError
from ..states.data_folder import PARTS
from ..states.samples import Sample
from ..states.subset import stratified

__all__ = ["drawn", "split"]

Shares = tuple[float, float, float]


def split(
    samples: Sequence[Sample], groups: Mapping[str, str], shares: Shares, seed: int
) -> dict[str, tuple[Sample, ...]]:
    """The parts with a share, by name, each in the order of the source.

    groups: what must not be torn apart, by sample id: the name of the picture, or the question where there is none.

    Raises:
        DataError: too few pictures for a part that has a share.
    """
    members: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        members[groups[sample.id]].append(sample)
    types = {name: sorted({one.type for one in own}) for name, own in members.items()}
    lacking = dict.fromkeys((part for part, share in zip(PARTS, shares, strict=True) if share), 0.0)
    part_of: dict[str, str] = {}
    for name in sorted(members, key=lambda name: (types[name], _rank(name, seed), name)):
        for part, share in zip(PARTS, shares, strict=True):
            if share:
                lacking[part] += share * len(members[name])
        part_of[name] = max(lacking, key=lambda part: lacking[part])
        lacking[part_of[name]] -= len(members[name])
    for part in lacking:
        if part not in part_of.values():
            raise DataError(
                f"{len(members):,} pictures or questions are too few for a split into {', '.join(lacking)}: {part} "
                "would be empty; take more samples, or fewer parts, as in --split 1,0,0"
            )
    return {part: tuple(one for one in samples if part_of[groups[one.id]] == part) for part in lacking}


def drawn(
    parts: Mapping[str, tuple[Sample, ...]], shares: Shares, count: int, seed: int
) -> dict[str, tuple[Sample, ...]]:
    """Of each part its share of `count` samples (at least one), each type with its own, in the order of the source.

    With a larger count, the samples of a smaller one stay.
    """
    wanted = {part: max(1, round(count * share)) for part, share in zip(PARTS, shares, strict=True) if share}
    found = {}
    for part, samples in parts.items():
        shuffled = sorted(samples, key=lambda one: (_rank(one.id, seed), one.id))
        kept = {one.id for one in stratified(shuffled, wanted[part], seed)}
        found[part] = tuple(one for one in samples if one.id in kept)
    return found


def _rank(name: str, seed: int) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16, key=str(seed).encode()).digest()
