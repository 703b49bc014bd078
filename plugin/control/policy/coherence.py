"""What the parts of a policy say of each other, and of the profiles that are served.

Subjects, rules and the patterns of a rule are read in the order of the file, and the first that matches decides. So
what stands behind one that takes all of it can never act: such a line is a mistake, and refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from trimtab.vectors import Profile, Registry
from trimtab.vectors.asked import MOST_PROFILES
from trimtab.vectors.document import Fault, Place
from trimtab.vectors.errors import AlphaError, RequestError, UnknownProfileError

from .limits import check_limits
from .model import LOCAL, Added, Policy, Rule
from .patterns import ALL, covered_by, is_pattern, matches

__all__ = ["faults_in", "faults_with"]


def faults_in(policy: Policy) -> Iterator[Fault]:
    """What is wrong with a policy whatever is served."""
    yield from _subjects(policy)
    yield from _rules(policy)
    yield from _added(policy)


def faults_with(policy: Policy, registry: Registry) -> Iterator[Fault]:
    """What is wrong with a policy for these profiles: unknown ones, strengths that they do not allow, empty ranges."""
    for index, rule in enumerate(policy.rules):
        yield from _granted(rule, ("rules", index, "allow"), registry)
    faults = [
        fault for index, one in enumerate(policy.enforced) for fault in _strength(one, ("enforced", index), registry)
    ]
    if policy.default is not None:
        faults += _strength(policy.default, ("default",), registry)
        faults = faults or list(_beyond(policy, policy.default, registry))
    yield from faults


def _subjects(policy: Policy) -> Iterator[Fault]:
    owners: dict[str, str] = {}
    for name, caller in policy.subjects.items():
        place: Place = ("subjects", name)
        for index, key in enumerate(caller.keys):
            if (owner := owners.setdefault(key, name)) != name:
                yield (*place, "keys", index), f"is a key of {owner!r} too, which stands before it and takes it"
            elif key in caller.keys[:index]:
                yield (*place, "keys", index), "is there twice"
        if not caller.keys and caller.subject_from is not None:
            yield place, "a gateway needs `keys`; without one, any client could send its header"
        elif not caller.keys and not policy.has_gateway:
            yield place, "has no key, and no gateway can name it; give it `keys`"


def _rules(policy: Policy) -> Iterator[Fault]:
    known = (LOCAL, *policy.subjects)
    before: list[str] = []
    labels = [policy.label(index) for index in range(len(policy.rules))]
    for index, rule in enumerate(policy.rules):
        for at, pattern in enumerate(rule.subjects):
            place: Place = ("rules", index, "subjects", at)
            if (earlier := covered_by(pattern, before)) is not None:
                yield place, f"{pattern!r} is never reached: {earlier!r} stands before it and takes it"
            elif pattern != ALL and not policy.has_gateway and not any(matches(pattern, name) for name in known):
                unknown = "matches no subject" if is_pattern(pattern) else "is no subject"
                yield place, f"{pattern!r} {unknown}; there are {', '.join(known)}, and '*' for all"
            before.append(pattern)
        if labels[index] in labels[:index]:
            yield ("rules", index, "name"), f"{labels[index]!r} is the name of an earlier rule; give each its own"
        patterns = list(rule.allow)
        for at, pattern in enumerate(patterns):
            if (earlier := covered_by(pattern, patterns[:at])) is not None:
                yield (
                    ("rules", index, "allow", pattern),
                    f"{pattern!r} is never reached: {earlier!r} stands before it and takes it",
                )
            if (alpha := rule.allow[pattern].alpha) is not None and alpha[0] > alpha[1]:
                yield (
                    ("rules", index, "allow", pattern, "alpha"),
                    f"alpha from {alpha[0]:g} to {alpha[1]:g} is an empty range",
                )


def _added(policy: Policy) -> Iterator[Fault]:
    enforced = [one.profile for one in policy.enforced]
    for index, one in enumerate(policy.enforced):
        if one.profile in enforced[:index]:
            yield ("enforced", index), f"{one.profile!r} is enforced twice; name it once"
        if one.alpha == 0:
            yield ("enforced", index), f"{one.profile!r} has alpha 0, which does nothing; leave it out"
    if policy.default is not None and policy.default.profile in enforced:
        yield ("default",), f"{policy.default.profile!r} is enforced already; leave it out of one of the two"
    if policy.limits.profiles is not None and policy.limits.profiles > policy.most_profiles:
        yield (
            ("limits", "profiles"),
            f"a request takes {MOST_PROFILES} profiles, {len(enforced)} of them enforced; allowed are 1 to "
            f"{MOST_PROFILES - len(enforced)}",
        )


def _granted(rule: Rule, place: Place, registry: Registry) -> Iterator[Fault]:
    for pattern, grant in rule.allow.items():
        found = [profile for name, profile in registry.items() if matches(pattern, name)]
        if not found and not is_pattern(pattern):
            yield (*place, pattern), str(UnknownProfileError(pattern, registry))
        if grant.alpha is not None and found and not any(_overlap(grant.alpha, profile) for profile in found):
            own = found[0].manifest.alpha
            yield (
                (*place, pattern, "alpha"),
                f"alpha from {grant.alpha[0]:g} to {grant.alpha[1]:g} is outside what {found[0].name!r} allows "
                f"({own.min:g} to {own.max:g}), so that nothing is left",
            )


def _overlap(alpha: tuple[float, float], profile: Profile) -> bool:
    return max(alpha[0], profile.manifest.alpha.min) <= min(alpha[1], profile.manifest.alpha.max)


def _strength(one: Added, place: Place, registry: Registry) -> Iterator[Fault]:
    try:
        alpha = one.alpha_of(registry[one.profile])
        if alpha == 0 and one.alpha is None and place[0] == "enforced":
            yield place, f"{one.profile!r} has the default strength 0, which does nothing; give alpha"
    except UnknownProfileError as error:
        yield (*place, "profile"), str(error)
    except AlphaError as error:
        yield (*place, "alpha"), f"{one.profile!r}: {error}"


def _beyond(policy: Policy, default: Added, registry: Registry) -> Iterator[Fault]:
    """The default is held to the limits as well, so that what one gets by saying nothing may be asked for."""
    own, *enforced = [
        (registry[one.profile], one.alpha_of(registry[one.profile])) for one in (default, *policy.enforced)
    ]
    try:
        check_limits(policy, [own], enforced)
    except RequestError as error:
        yield ("default",), str(error)
