"""What a request gets under the access policy and the experiments of its server, and who is told of it.

`engine` puts `choose` where every request passes, in place of `requests.admission.by_wish`. A refusal is told where it
is made, because the request ends there; what is granted is told when the request is admitted, because until then it is
decided more than once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.vectors import Registry
from trimtab.vectors.asked import Wish
from trimtab.vectors.errors import RequestError
from trimtab.vectors.experiments import Plan

from ..config import SteeringConfig
from ..errors import StartupError
from ..requests import admission
from ..requests.decided import Chosen, Entered, Governed, record
from ..requests.request import choose as choose_profiles
from .experiments.enter import Rights, Way, enter
from .experiments.fits import misnamed
from .experiments.held import plan_in_force, unit_key
from .experiments.units import unit_of
from .identity import headers_carried, who_asks
from .policy import Policy
from .policy.decide import Decision, decide, rule_of
from .policy.held import check_file, policy_in_force
from .policy.limits import Part
from .served import Served, served

__all__ = ["Told", "check", "choose", "governs", "install", "observers", "plan_of"]


@dataclass(frozen=True)
class Told:
    """One decision, for counters and logs. outcome: see `control.policy.decide`. mode: of the policy. profiles: what is
    served."""

    subject: str | None
    rule: str
    outcome: str
    reason: str
    mode: str
    profiles: tuple[tuple[str, float], ...] = ()


observers: list[Callable[[Told], None]] = []
"""Told each decision once."""

_REFUSALS = (403, 503)
_UNAVAILABLE = 503


def install() -> None:
    """Let the policy decide in this process. Safe to call again."""
    if choose not in admission.choosers:
        admission.choosers.append(choose)
        admission.settled.append(_settle)


def check(vllm_config: Any, registry: Registry | None) -> None:
    """Hold the policy of an engine that starts against its profiles.

    Raises:
        StartupError: it cannot be used. RequestError: it cannot be read.
    """
    config = SteeringConfig.of(vllm_config)
    if config is not None and config.policy and not config.state:  # with a state folder the server has done it
        check_file(Path(config.policy), registry or Registry(()))
        policy = policy_in_force(config, None)
        if policy is not None and (said := list(misnamed(policy, None))):
            raise StartupError(f"the access policy names what is not there: {'; '.join(said)}")


def governs(vllm_config: Any) -> bool:
    """Whether an engine has an access policy."""
    config = SteeringConfig.of(vllm_config)
    return config is not None and bool(config.policy)


def plan_of(vllm_config: Any) -> Plan | None:
    """The plan of experiments that an engine follows now; None where there is none.

    Raises:
        RequestError: 503 where that cannot be told.
    """
    config = SteeringConfig.of(vllm_config)
    now = served(vllm_config) if config is not None and config.experiments else None
    return None if config is None or now is None else plan_in_force(config, now.experiments)


def choose(asks: Wish, vllm_config: Any) -> Chosen:
    """What a request gets: what the experiments and the policy of its engine give it, or what it asks for where there
    are none.

    Raises:
        RequestError: 403 for what its subject may not ask for, 503 for a profile of the policy or of an arm that is not
            there; else as `admission.by_wish` and `enter`.
    """
    config = SteeringConfig.of(vllm_config)
    now = served(vllm_config) if config is not None and (config.policy or config.experiments) else None
    if config is None or now is None:
        return admission.by_wish(asks, vllm_config)
    policy, plan = policy_in_force(config, now.policy), plan_in_force(config, now.experiments)
    subject = None if policy is None else who_asks(policy)
    try:
        way = _way(plan, policy, subject, asks)
        given = None if way.arm is None or way.profiles is None else _given(way, now)
        if policy is not None:
            wish = None if way.arm is not None else asks.profiles
            decision = decide(policy, subject, wish, now, given)
            return _governed(policy, subject, decision, way.entered)
        return _free(given, asks, now, way)
    except RequestError as error:
        if policy is not None and error.status in _REFUSALS:
            _tell(Told(subject, rule_of(policy, subject)[0], "refused", str(error), policy.mode))
        raise


def _way(plan: Plan | None, policy: Policy | None, subject: str | None, asks: Wish) -> Way:
    if plan is None:
        if asks.experiment is not None:
            raise admission.no_experiments()
        return Way()
    found = record()
    rights = Rights() if policy is None else _rights(policy, subject)
    if found is None:  # the answer could not say so
        rights = replace(rights, default=None)
    request = None if found is None else found.request
    return enter(plan, unit_key(), asks, lambda one: unit_of(one, asks, request, headers_carried()), rights)


def _rights(policy: Policy, subject: str | None) -> Rights:
    name, rule = rule_of(policy, subject)
    if policy.mode == "report":  # it changes nothing
        return Rights(may_force=rule.may_force_arm, rule=name)
    default = None if rule.default is None else rule.default.experiment
    return Rights((*rule.experiments, *([default] if default else [])), default, rule.may_force_arm, name)


def _given(way: Way, now: Served) -> tuple[Part, ...]:
    """The profiles of an arm, or a 503: nobody is given another arm, or none, without its being logged so."""
    try:
        return tuple(choose_profiles(way.profiles or (), now.registry))
    except RequestError as error:
        raise RequestError(
            f"arm {way.arm!r} of experiment {way.experiment!r} cannot be served now ({error}); try again later",
            param="steering.experiment",
            status=_UNAVAILABLE,
        ) from error


def _free(given: tuple[Part, ...] | None, asks: Wish, now: Served, way: Way) -> Chosen:
    """Without a policy."""
    own = tuple(choose_profiles(asks.profiles or (), now.registry)) if way.arm is None else given or ()
    chosen = Governed(own)
    chosen.entered = way.entered
    chosen.added = 0 if given is None else len(own)
    return chosen


def _governed(policy: Policy, subject: str | None, decision: Decision, entered: Entered | None) -> Governed:
    chosen = Governed(decision.profiles)
    chosen.entered = entered
    chosen.added, chosen.subject = decision.added, subject
    chosen.rule, chosen.outcome, chosen.reason = decision.rule, decision.outcome, decision.reason
    chosen.mode = policy.mode
    return chosen


def _settle(chosen: Chosen) -> None:
    if isinstance(chosen, Governed) and chosen.rule:
        profiles = tuple((profile.name, alpha) for profile, alpha in chosen)
        _tell(Told(chosen.subject, chosen.rule, chosen.outcome, chosen.reason, chosen.mode, profiles))


def _tell(told: Told) -> None:
    for tell in observers:
        tell(told)
