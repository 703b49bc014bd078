"""What a request gets under the access policy of its server, and who is told of it.

`engine` puts `choose` where every request passes, in place of `requests.admission.by_wish`. A refusal is told where it
is made, because the request ends there; what is granted is told when the request is admitted, because until then it is
decided more than once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.vectors import Registry
from trimtab.vectors.errors import RequestError

from ..config import SteeringConfig
from ..requests import admission
from ..requests.decided import Asks, Chosen, Governed
from .identity import who_asks
from .policy import Policy
from .policy.decide import Decision, decide, rule_of
from .policy.held import check_file, policy_in_force
from .served import served

__all__ = ["Told", "check", "choose", "governs", "install", "observers"]


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
        policy_in_force(config, None)


def governs(vllm_config: Any) -> bool:
    """Whether an engine has an access policy."""
    config = SteeringConfig.of(vllm_config)
    return config is not None and bool(config.policy)


def choose(asks: Asks, vllm_config: Any) -> Chosen:
    """What a request gets: what the policy of its engine gives it, or what it asks for where there is none.

    Raises:
        RequestError: 403 for what its subject may not ask for, 503 for a default or enforced profile that is not there;
            else as `admission.by_wish`.
    """
    config = SteeringConfig.of(vllm_config)
    now = served(vllm_config) if config is not None and config.policy else None
    policy = policy_in_force(config, now.policy) if config is not None and now is not None else None
    if now is None or policy is None:
        return admission.by_wish(asks, vllm_config)
    subject = who_asks(policy)
    try:
        decision = decide(policy, subject, asks, now)
    except RequestError as error:
        if error.status in _REFUSALS:
            _tell(Told(subject, rule_of(policy, subject)[0], "refused", str(error), policy.mode))
        raise
    return _governed(policy, subject, decision)


def _governed(policy: Policy, subject: str | None, decision: Decision) -> Governed:
    chosen = Governed(decision.profiles)
    chosen.added, chosen.subject = decision.added, subject
    chosen.rule, chosen.outcome, chosen.reason = decision.rule, decision.outcome, decision.reason
    chosen.mode = policy.mode
    return chosen


def _settle(chosen: Chosen) -> None:
    if isinstance(chosen, Governed):
        profiles = tuple((profile.name, alpha) for profile, alpha in chosen)
        _tell(Told(chosen.subject, chosen.rule, chosen.outcome, chosen.reason, chosen.mode, profiles))


def _tell(told: Told) -> None:
    for tell in observers:
        tell(told)
