"""Whether a plan fits the profiles and the access policy: each arm can be given, and the policy names what is there."""

from __future__ import annotations

from collections.abc import Iterator

from trimtab.vectors import Registry
from trimtab.vectors.errors import RequestError
from trimtab.vectors.experiments import Arm, Plan

from ...requests.request import choose
from ..policy.limits import check_limits
from ..policy.model import Policy

__all__ = ["faults", "misnamed"]


def faults(plan: Plan, registry: Registry, policy: Policy | None = None) -> Iterator[str]:
    """What keeps an arm from being given, each in a sentence. An experiment that is stopped without an arm is not
    looked at."""
    for name, one in plan.experiments.items():
        if one.status == "stopped":
            continue
        for arm in one.arms if one.stopped_with is None else [one.stopped_with]:
            if (said := _fault(one.arms[arm], registry, policy)) is not None:
                yield f"experiment {name!r}, arm {arm!r}: {said}"


def _fault(arm: Arm, registry: Registry, policy: Policy | None) -> str | None:
    try:
        parts = choose(arm.profiles or (), registry)
        if policy is None:
            return None
        enforced = [one for one in policy.enforced if one.profile in registry]
        for profile, _ in parts:
            if profile.name in {one.profile for one in enforced}:
                return f"profile {profile.name!r} is enforced by the access policy; leave it out of the arm"
        added = [(registry[one.profile], one.alpha_of(registry[one.profile])) for one in enforced]
        check_limits(policy, parts, added)
    except RequestError as error:
        return str(error)
    return None


def misnamed(policy: Policy, plan: Plan | None) -> Iterator[str]:
    """Experiments that an access policy names and a plan does not have, each in a sentence.

    Without a plan only a default counts: a list of names grants nothing then.
    """
    known = () if plan is None else tuple(plan.experiments)
    for index, rule in enumerate(policy.rules):
        names = [] if rule.default is None else [rule.default.experiment]
        for name in (*names, *(() if plan is None else rule.experiments)):
            if name not in known:
                yield (
                    f"{policy.label(index)} of the access policy names experiment {name!r}; there are: "
                    f"{', '.join(known) or 'none at all (--steering-experiments FILE)'}"
                )
