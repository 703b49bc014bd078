"""What a steering did to answers, in the figures that head every table and page (docs/method.md §6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..findings import Effect
from ..statistics import rate
from .repetition import stutters

__all__ = ["Same", "broken", "effect_of"]

Same = Callable[[str, str], bool]


def effect_of(
    before: Mapping[str, str],
    after: Mapping[str, str],
    label: Callable[[str, str], str],
    meant: Mapping[str, str],
    same: Same | None = None,
) -> Effect:
    """Judge a steering by the unsteered answers; samples that both have count.

    before, after: answers by sample. label: the class of (sample, answer). meant: class → the class that it should turn
    into; without it every change is off target. same: whether two answers are equal in every word that no class is told
    by; None where the class is the whole answer. An answer of a class that should stay is off target as soon as its
    class or any other word of it changed.
    """
    turned = kept = strayed = sources = others = moved = 0
    shared = sorted(before.keys() & after.keys())
    for one in shared:
        old, new = label(one, before[one]), label(one, after[one])
        alike = same is None or same(before[one], after[one])
        if old in meant:
            sources += 1
            hit = new == meant[old]
            turned += hit
            kept += hit and alike
            strayed += not hit and new != old
        else:
            others += 1
            moved += new != old or not alike
    return Effect(
        turned=rate(turned, sources) if sources else None,
        unchanged=rate(kept, sources) if sources and same is not None else None,
        strayed=rate(strayed, sources) if sources else None,
        off_target=rate(moved, others) if others else None,
        stutter=rate(sum(stutters(after[one]) for one in shared), len(shared)),
        stutter_before=rate(sum(stutters(before[one]) for one in shared), len(shared)),
    )


def broken(before: str, after: str, turned: bool, same: Same | None) -> bool:
    """Whether an answer turned, as was meant, but lost or gained other words; or stutters and did not before."""
    return (turned and same is not None and not same(before, after)) or (stutters(after) and not stutters(before))
