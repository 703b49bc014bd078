"""What may change in a plan while it is running: nothing that would give a unit another arm under the same seed."""

from __future__ import annotations

from collections.abc import Iterator

from .plan import Experiment, Plan

__all__ = ["changes"]


def changes(old: Plan, new: Plan) -> list[str]:
    """Which changes from `old` to `new` are refused, each in a sentence; empty where all of them are allowed."""
    refused: list[str] = []
    for name, before in old.experiments.items():
        if before.status == "draft":  # nobody was assigned
            continue
        after = new.experiments.get(name)
        if after is None:
            if before.running:
                refused.append(f"{name}: is running; write `status: stopped` before you take it out")
            continue
        refused += [f"{name}: {said}" for said in _of_experiment(before, after)]
        # Also under a new seed: those who leave the range or enter the holdout might be in the other phase still.
        if before.seed == after.seed:
            refused += [f"{name}: {said}" for said in _of_layer(old, new, before, after)]
    return refused


def _of_experiment(before: Experiment, after: Experiment) -> Iterator[str]:
    if after.status == "draft":
        yield "has begun, so it is no draft any more; write stopped"
    if before.seed != after.seed:
        return
    again = f"under the seed {before.seed!r}; give a new seed, which assigns all units anew"
    if list(before.arms) != list(after.arms):
        yield f"the arms, or their order, may not change {again}"
    else:
        for arm, one in before.arms.items():
            if one.steering != after.arms[arm].steering:
                yield f"the steering of arm {arm!r} may not change {again}"
            if one.weight != after.arms[arm].weight:
                yield f"the weight of arm {arm!r} may not change {again}"
    if before.unit != after.unit:
        yield f"where its unit comes from may not change {again}"
    if after.coverage < before.coverage:
        yield f"the coverage may only grow, and {after.coverage:g} is less than {before.coverage:g}"
    if before.layer != after.layer:
        yield f"the layer may not change {again}"
    elif not (after.range[0] <= before.range[0] and before.range[1] <= after.range[1]):
        yield f"the range may only grow, and the units of {before.range[0]:g} to {before.range[1]:g} are in it"
    if not before.running and after.running:
        yield f"was stopped, and may not go on {again}"


def _of_layer(old: Plan, new: Plan, before: Experiment, after: Experiment) -> Iterator[str]:
    if before.layer != after.layer:
        return
    mine, theirs = old.layers[before.layer], new.layers[after.layer]
    if mine.seed != theirs.seed:
        yield f"the seed of its layer {before.layer!r} may not change while it has its own seed"
    if theirs.holdout > mine.holdout:
        yield f"the holdout of its layer {before.layer!r} may only shrink, from {mine.holdout:g}"
