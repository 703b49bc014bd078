"""What may bias a comparison, in sentences: where units did not follow the weights, and what arms met differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..findings import ServedFound
from .design import Design
from .srm import ALARM, uneven, where
from .units import Units

__all__ = ["hints"]

_UNEVEN = 0.01
"""The p below which arms are said to differ in how their requests ended: a hint, not an alarm."""


def hints(
    units: Units, design: Design, served: Sequence[ServedFound], mismatch: float, missing: float
) -> Iterator[str]:
    """mismatch, missing: p of units, and of units with a value, against the weights."""
    yield from design.assumed
    if mismatch < ALARM:
        yield f"Units do not follow the weights (p = {mismatch:.1g})."
        for what, which, p in where(units.arm, design.weights, units.slices)[:3]:
            yield f"They do not in one part of the traffic: {what} {which} (p = {p:.1g})."
    elif missing < ALARM:
        yield (
            f"Units follow the weights, those with a value of {design.primary.name} do not (p = {missing:.1g}): "
            "outcomes of an arm are lost, or the arm changes who gives one."
        )
    requests = [one.requests for one in served]
    for what, counts, of in (
        ("aborted", [one.aborted for one in served], [one.ended for one in served]),
        ("failed", [one.failed for one in served], [one.ended for one in served]),
        ("left unclosed in the log", [one.requests - one.ended for one in served], requests),
        ("served something else than the arm", [one.other for one in served], requests),
    ):
        if uneven(counts, of) < _UNEVEN:
            shares = (count / total if total else 0.0 for count, total in zip(counts, of, strict=True))
            told = ", ".join(f"{name} {share:.2%}" for name, share in zip(design.names, shares, strict=True))
            yield f"Arms differ in how many requests were {what}: {told}."
    if not design.even:
        yield (
            "Arms have unequal weights, so how fast they are and what they find in the prefix cache is not compared: "
            "the arm with less traffic has the colder cache."
        )
    if two := units.counted["units that met two arms, counted in their first"]:
        yield f"{two:,} units met two arms under one seed: their unit is not the same everywhere, or the plan was not."
    if two := units.counted["units that met two versions of a profile"]:
        yield f"{two:,} units met two versions of a profile: it was replaced while the experiment ran."
