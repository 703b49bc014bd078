"""How a request takes part in an experiment, or why it may not. Pure but for the id that an exposure gets."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.vectors.asked import LONGEST_UNIT, Asked, Wish
from trimtab.vectors.errors import RequestError, shown
from trimtab.vectors.experiments import Experiment, Plan, UnitKey

from ...requests.decided import Entered
from .assign import arm_of, assigned
from .units import UnitFinder

__all__ = ["Rights", "Way", "enter"]

_FORBIDDEN, _UNAVAILABLE = 403, 503
_PARAM = "steering.experiment"


@dataclass(frozen=True)
class Rights:
    """What a request may do with experiments. names: those that it may name, None for all. default: the one that it
    enters by itself. may_force: whether it may choose its arm. rule: whose word that is."""

    names: Sequence[str] | None = None
    default: str | None = None
    may_force: bool = False
    rule: str = ""


@dataclass(frozen=True)
class Way:
    """What a request gets by the plan. arm: its name, or None where the plan gives nothing. profiles: of that arm, as
    `Arm.profiles`. experiment: of that arm. entered: None where no exposure is to be logged."""

    experiment: str = ""
    arm: str | None = None
    profiles: tuple[Asked, ...] | None = None
    entered: Entered | None = None


def enter(plan: Plan, key: UnitKey, wish: Wish, find: UnitFinder, rights: Rights) -> Way:
    """How a request takes part.

    find: finds its unit, as `unit_of`.

    Raises:
        RequestError: a 403 for an experiment or an arm that it may not name; a 400 for one that is not there, or where
            no unit is found.
    """
    name = wish.experiment or rights.default
    if name is None:
        return Way()
    one = _experiment(plan, name, wish, rights)
    if wish.arm is not None:
        _check_arm(one, name, wish.arm, rights)
    elif one.stopped_with is not None and wish.profiles is None:
        return Way(name, one.stopped_with, one.arms[one.stopped_with].profiles)
    elif not one.running:
        return Way()
    found = find(one)
    if found is None:
        if wish.experiment is None:
            return Way()
        raise RequestError(
            f"experiment {name!r} needs to know whose request this is, and found it nowhere; send "
            f"{_sources(one)}, the same for all requests of a user or a conversation",
            param="steering.unit",
        )
    unit, source = found
    variation = assigned(plan, name, unit, key) if wish.arm is None else arm_of(one, unit, key)
    if variation is None:
        return Way()
    arm = wish.arm or (variation if wish.profiles is None else None)
    entered = Entered(
        exposure_id=f"exp-{secrets.token_hex(16)}",
        experiment=name,
        seed=one.seed,
        variation=variation,
        unit=key.pseudonym(unit),
        unit_source=source,
        served=arm or ("named" if wish.profiles else "none"),
        forced=wish.arm is not None,
        plan=plan.digest,
    )
    return Way(name, arm, None if arm is None else one.arms[arm].profiles, entered)


def _experiment(plan: Plan, name: str, wish: Wish, rights: Rights) -> Experiment:
    if wish.experiment is not None and rights.names is not None and name not in rights.names:
        raise RequestError(
            f"experiment {shown(name)} may not be asked for ({rights.rule} of the access policy); allowed: "
            f"{', '.join(rights.names) or 'none at all'}; leave `experiment` out",
            param=_PARAM,
            status=_FORBIDDEN,
        )
    if name not in plan.experiments:
        if wish.experiment is None:  # the operator's mistake
            raise RequestError(
                f"the access policy names experiment {name!r}, which is not there now; try again later",
                param=_PARAM,
                status=_UNAVAILABLE,
            )
        raise RequestError(
            f"unknown experiment {shown(name)}; there are: {', '.join(plan.experiments) or 'none at all'}", param=_PARAM
        )
    return plan.experiments[name]


def _check_arm(one: Experiment, name: str, arm: str, rights: Rights) -> None:
    if not rights.may_force:
        raise RequestError(
            "steering.arm is for keys that may choose an arm (may_force_arm of the access policy); leave it out, and "
            "the unit decides",
            param="steering.arm",
            status=_FORBIDDEN,
        )
    if arm not in one.arms:
        raise RequestError(
            f"experiment {name!r} has no arm {shown(arm)}; there are: {', '.join(one.arms)}", param="steering.arm"
        )


def _sources(one: Experiment) -> str:
    said = {
        "steering.unit": f'"unit" in steering, up to {LONGEST_UNIT} characters',
        "X-Session-ID": "the header X-Session-ID, once",
        "user": "`user` in the body",
        "conversation": "a chat with a message of a user",
    }
    return " or ".join(said[source] for source in one.unit)
