"""What a policy would do with a request, for people: by which rule, and why.

Without the profiles, the decision is made with stand-ins that allow every strength. What depends on the real ones is
left out and named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from trimtab.vectors import AlphaRange, ModelIdentity, Profile, Registry, SteeringVector
from trimtab.vectors.errors import FormatError, RequestError
from trimtab.vectors.manifest import MAX_ALPHA

from .decide import Asks, Decision, decide, rule_of
from .limits import Part
from .model import Limits, Policy
from .patterns import ALL, is_pattern, matches

__all__ = ["Explanation", "explain", "warnings_of"]

_ANY_MODEL = ModelIdentity(architecture="any", hidden_size=1, num_layers=1)


@dataclass(frozen=True)
class Explanation:
    """rule: its name. decision: what is served, or the refusal. unknown: what could not be told without profiles."""

    rule: str
    decision: Decision | RequestError
    unknown: tuple[str, ...] = ()

    @property
    def enforced(self) -> tuple[Part, ...]:
        """What the server adds by itself."""
        if isinstance(self.decision, RequestError) or not self.decision.added:
            return ()
        return self.decision.profiles[-self.decision.added :]


@dataclass(frozen=True)
class _Served:
    registry: Registry
    disabled: Mapping[str, str] = field(default_factory=dict)


def explain(policy: Policy, subject: str | None, asks: Asks, registry: Registry | None) -> Explanation:
    """What a request of `subject` gets, None for one that is not known. registry: None where it is not at hand."""
    name, rule = rule_of(policy, subject)
    unknown: tuple[str, ...] = ()
    if registry is None:
        unknown = tuple(_untold(policy, asks))
        registry = _stand_ins(policy, subject, asks)
        policy = policy.model_copy(update={"limits": Limits(profiles=policy.limits.profiles, against_enforced=None)})
    if rule.default is not None:
        unknown += (f"the arm of experiment {rule.default.experiment!r}, for the units that take part in it",)
    try:
        return Explanation(name, decide(policy, subject, asks, _Served(registry)), unknown)
    except RequestError as error:
        return Explanation(name, error, unknown)


def warnings_of(policy: Policy, registry: Registry | None) -> Iterator[str]:
    """What may not be meant, and is no mistake by itself."""
    for index, rule in enumerate(policy.rules):
        for pattern in rule.allow if registry is not None else ():
            if is_pattern(pattern) and not any(matches(pattern, name) for name in registry or ()):
                yield f"{policy.label(index)}: {pattern!r} matches no profile now"
    everybody = next((rule for rule in policy.rules if ALL in rule.subjects), None)
    for index, rule in enumerate(policy.rules):
        if everybody is None or rule is everybody:
            continue
        more = [pattern for pattern, grant in everybody.allow.items() if rule.allow.get(pattern) != grant]
        more = [pattern for pattern in more if is_pattern(pattern) or rule.grant(pattern) != everybody.grant(pattern)]
        if everybody.may_opt_out and not rule.may_opt_out:
            more.append("opting out")
        if more:
            yield (
                f"the rule for all allows {', '.join(more)}; {policy.label(index)} does not in the same way, but its "
                "subjects need only leave their key out"
            )


def _untold(policy: Policy, asks: Asks) -> Iterator[str]:
    yield "whether the profiles exist, and the strengths that they allow"
    if any(one.alpha is None for one in asks or ()):
        yield "the default strength of a profile that is asked for without one"
    if policy.limits.relative_dose is not None:
        yield "limits.relative_dose"
    if policy.enforced and policy.limits.against_enforced is not None:
        yield "limits.against_enforced"


def _stand_ins(policy: Policy, subject: str | None, asks: Asks) -> Registry:
    _, rule = rule_of(policy, subject)
    strengths = {one.profile: one.alpha for one in (*policy.enforced, policy.default) if one is not None}
    profiles = []
    for name in {*strengths, *(one.profile for one in asks or ())}:
        grant = rule.grant(name)
        low, high = grant.alpha if grant is not None and grant.alpha is not None else (-MAX_ALPHA, MAX_ALPHA)
        given = strengths.get(name)
        default = min(max(1.0, low), high) if given is None else given
        alpha = AlphaRange(default=default, min=-MAX_ALPHA, max=MAX_ALPHA)
        try:
            profiles.append(Profile.coarse(name, [SteeringVector(0, [1.0])], model=_ANY_MODEL, alpha=alpha))
        except FormatError:  # no name of a profile
            continue
    return Registry(profiles)
