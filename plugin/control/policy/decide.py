"""What one request gets under a policy. Pure: the same request, policy and profiles give the same decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from trimtab.vectors import Profile, Registry
from trimtab.vectors.asked import NONE, Asked
from trimtab.vectors.errors import AlphaError, RequestError, UnknownProfileError, shown

from ...requests.request import choose
from .limits import Part, check_limits
from .model import ANONYMOUS, Added, Grant, Policy, Rule
from .patterns import ALL, matches

__all__ = ["NO_RULE", "Asks", "Decision", "Outcome", "Served", "decide", "rule_of"]

NO_RULE = "no-rule"
"""What the rule is called where none of a policy matches: nothing may be asked for."""

Asks = tuple[Asked, ...] | None
"""What a request says: None for nothing, () for "none"."""

Outcome = Literal["allowed", "assigned", "defaulted", "enforced", "refused", "would_refuse"]

_FORBIDDEN, _UNAVAILABLE = 403, 503
_NOTHING = Rule(subjects=(ALL,))


class Served(Protocol):
    """What is served now. disabled: the reason, by name of a profile that was taken out."""

    @property
    def registry(self) -> Registry | None: ...
    @property
    def disabled(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Decision:
    """What a request gets: the profiles that it chose, or the default, then those that are enforced.

    added: how many of `profiles`, counted from the end, the server adds by itself; a prompt without the positions of
    such a one leaves nothing for it to do.
    outcome: "allowed" as asked; "assigned": an experiment decided; "defaulted"; "enforced": nothing was asked for, and
    what is enforced acts; in report mode what it would have been, and "would_refuse".
    """

    profiles: tuple[Part, ...]
    added: int
    rule: str
    outcome: Outcome
    reason: str = ""


def rule_of(policy: Policy, subject: str | None) -> tuple[str, Rule]:
    """The name and the rights of the first rule that matches a subject; without a subject, only "*" does."""
    for index, rule in enumerate(policy.rules):
        if any(pattern == ALL or (subject is not None and matches(pattern, subject)) for pattern in rule.subjects):
            return policy.label(index), rule
    return NO_RULE, _NOTHING


def decide(
    policy: Policy, subject: str | None, asks: Asks, served: Served, given: tuple[Part, ...] | None = None
) -> Decision:
    """What a request gets.

    Args:
        subject: who asks; None is unknown.
        asks: as it was parsed.
        given: what an experiment gives it in place of what it asks for. The subject needs no right to these profiles;
            the limits hold.

    Raises:
        RequestError: a 403 for what the subject may not ask for, a 503 for a default or enforced profile that is not
            there, else as `choose`.
    """
    name, rule = rule_of(policy, subject)
    if policy.mode == "enforce":
        return _judge(policy, subject, name, rule, asks, served, given)
    # First, what would be served without a policy, with its errors.
    free, added = (tuple(choose(asks or (), served.registry)), 0) if given is None else (given, len(given))
    try:
        judged = _judge(policy, subject, name, rule, asks, served, given)
    except RequestError as error:
        return Decision(free, added, name, "would_refuse", str(error))
    return Decision(free, added, name, judged.outcome, judged.reason)


def _judge(
    policy: Policy,
    subject: str | None,
    name: str,
    rule: Rule,
    asks: Asks,
    served: Served,
    given: tuple[Part, ...] | None,
) -> Decision:
    enforced = tuple(_added(one, "enforced", served) for one in policy.enforced)
    if given is not None:
        check_limits(policy, given, enforced)
        parts = (*given, *enforced)
        return Decision(parts, len(parts), name, "assigned", _said(given))
    if asks is None and policy.default is not None:
        default = _added(policy.default, "default", served)
        parts = (default, *enforced)
        return Decision(parts, len(parts), name, "defaulted", f"nothing was asked for: {_said([default])}")
    if not asks:
        if asks is not None and policy.default is not None and not rule.may_opt_out:
            raise RequestError(
                f'{_who(subject)} may not ask for "{NONE}" ({name} of the access policy); leave steering out, or ask '
                "whoever runs this server for the right",
                status=_FORBIDDEN,
            )
        return Decision(enforced, len(enforced), name, "enforced" if enforced else "allowed", _said(enforced))
    own = _own(subject, name, rule, asks, served, enforced)
    check_limits(policy, own, enforced)
    return Decision((*own, *enforced), len(enforced), name, "allowed", _said(own))


def _own(
    subject: str | None, name: str, rule: Rule, asks: Sequence[Asked], served: Served, enforced: Sequence[Part]
) -> tuple[Part, ...]:
    """What a request chose, without what is enforced anyway."""
    own: list[Part] = []
    names = [profile.name for profile, _ in enforced]
    for one in asks:
        forced = one.profile in names
        grant = rule.grant(one.profile)
        if not forced and grant is None:
            raise RequestError(
                f"{_who(subject)} may not use profile {shown(one.profile)} ({name} of the access policy); "
                f"allowed: {', '.join(rule.allow) or 'none at all'}; choose one of these, or leave steering out",
                param="steering.profile",
                status=_FORBIDDEN,
            )
        [(profile, alpha)] = choose([one], served.registry)
        if forced:
            _check_same(profile, alpha, enforced)
            continue
        if grant is not None:
            _check_range(profile, alpha, grant, name)
        _check_version(one, profile, rule, name, served)
        own.append((profile, alpha))
    return tuple(own)


def _check_same(profile: Profile, alpha: float, enforced: Sequence[Part]) -> None:
    """A request may name what is enforced, if it is what it gets."""
    if (profile, alpha) not in enforced:
        strength = next(strength for one, strength in enforced if one.name == profile.name)
        raise RequestError(
            f"this server adds its own version of profile {profile.name!r} to every request, with alpha {strength:g} "
            "and no other; leave it out of steering",
            param="steering.alpha",
            status=_FORBIDDEN,
        )


def _check_range(profile: Profile, alpha: float, grant: Grant, name: str) -> None:
    if grant.alpha is not None and not grant.alpha[0] <= alpha <= grant.alpha[1]:
        raise RequestError(
            f"alpha {alpha:g} of profile {profile.name!r} is not allowed ({name} of the access policy); allowed is a "
            f"number from {grant.alpha[0]:g} to {grant.alpha[1]:g}; send alpha within it",
            param="steering.alpha",
            status=_FORBIDDEN,
        )


def _check_version(asked: Asked, profile: Profile, rule: Rule, name: str, served: Served) -> None:
    registry = served.registry or Registry(())
    active = profile.name in registry and registry[profile.name].digest == profile.digest
    if asked.version is not None and not active and not rule.may_name_versions:
        raise RequestError(
            f"version {asked.version} of profile {profile.name!r} is staged and not active, and may not be asked for "
            f"({name} of the access policy); leave the version out",
            param="steering.profile",
            status=_FORBIDDEN,
        )


def _added(one: Added, what: str, served: Served) -> Part:
    """A profile that the server adds, or a 503: a request is never served without it."""
    reason = served.disabled.get(one.profile)
    if reason is None:
        try:
            profile = (served.registry or Registry(()))[one.profile]
            return profile, one.alpha_of(profile)
        except UnknownProfileError:
            reason = "it is not loaded"
        except AlphaError as error:  # another version has become active since the policy was read
            reason = str(error)
    raise RequestError(
        f"the {what} profile {one.profile!r} of the access policy cannot be served now ({reason}), and nothing is "
        "served without it; try again later",
        param="steering.profile",
        status=_UNAVAILABLE,
    )


def _who(subject: str | None) -> str:
    return f"a request that is {ANONYMOUS} (no known key)" if subject is None else f"subject {subject!r}"


def _said(parts: Sequence[Part]) -> str:
    return ", ".join(f"{profile.name} at {alpha:g}" for profile, alpha in parts)
