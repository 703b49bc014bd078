"""Which arm a unit gets: a pure function of the plan, the unit and the server's key. Nothing is stored.

    part      h(layer's seed, "layer")     where the unit stands in its layer; experiments have disjoint ranges of it
    holdout   h(layer's seed, "holdout")   below the layer's holdout, no experiment gets the unit
    coverage  h(seed, "coverage")          below the coverage, the unit takes part; a larger coverage only adds units
    arm       h(seed, "arm")               in which arm's range of [0, 1)

h is BLAKE2b (RFC 7693) with the key of the server, the seed as its salt and the word as its person, so that the four
are independent, and a client that chooses its unit cannot choose its arm. Its first 53 bits are a number in [0, 1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate

from trimtab.vectors.experiments import Experiment, Plan, UnitKey

__all__ = ["arm_of", "assigned", "fraction", "ranges"]

_PARTS = 1 << 53  # what a float's fraction holds: each value is exact, and below 1


def assigned(plan: Plan, name: str, unit: str, key: UnitKey) -> str | None:
    """The arm of an experiment that a unit is assigned to; None where the unit does not take part."""
    one = plan.experiments[name]
    layer = plan.layers[one.layer]
    if fraction(key, "holdout", layer.seed, unit) < layer.holdout:
        return None
    if not one.range[0] <= fraction(key, "layer", layer.seed, unit) < one.range[1]:
        return None
    if not fraction(key, "coverage", one.seed, unit) < one.coverage:
        return None
    return arm_of(one, unit, key)


def arm_of(one: Experiment, unit: str, key: UnitKey) -> str:
    """The arm that a unit gets if it takes part."""
    at = fraction(key, "arm", one.seed, unit)
    bounds = ranges([arm.weight for arm in one.arms.values()])
    return next(arm for arm, (start, end) in zip(one.arms, bounds, strict=True) if start <= at < end)


def ranges(weights: Sequence[float]) -> list[tuple[float, float]]:
    """The part of [0, 1) that each weight stands for, in their order, without a gap."""
    total = sum(weights)
    ends = [*(end / total for end in accumulate(weights[:-1])), 1.0]
    return list(zip([0.0, *ends[:-1]], ends, strict=True))


def fraction(key: UnitKey, word: str, seed: str, unit: str) -> float:
    """h of a unit, in [0, 1). word, seed: 16 bytes at most."""
    digest = hashlib.blake2b(
        unit.encode("utf-8", "surrogatepass"),
        digest_size=8,
        key=hashlib.blake2b(key.secret, person=b"trimtab units").digest(),
        salt=seed.encode(),
        person=word.encode(),
    ).digest()
    return (int.from_bytes(digest, "big") >> 11) / _PARTS
