"""The bounds of a policy on what a request asks for. What the server adds by itself is not counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from trimtab.vectors import Profile
from trimtab.vectors.errors import RequestError

from .model import Policy
from .pushback import share_undone

__all__ = ["Part", "check_limits"]

Part = tuple[Profile, float]
"""A profile with its strength."""

_FORBIDDEN = 403
# Of a bound: what float64 leaves uncertain, so that a request exactly at the bound is within it.
_ROUNDING = 1e-9


def check_limits(policy: Policy, own: Sequence[Part], enforced: Sequence[Part]) -> None:
    """Refuse what goes beyond the limits of a policy.

    Args:
        own: what the request chose, in its order.
        enforced: what is added to it.

    Raises:
        RequestError: a 403 with what was asked, what is allowed and the way out.
    """
    if len(own) > policy.most_profiles:
        raise RequestError(
            f"steering names {len(own)} profiles; the access policy allows {policy.most_profiles}; leave some out",
            status=_FORBIDDEN,
        )
    if policy.limits.relative_dose is not None:
        _check_dose(own, policy.limits.relative_dose)
    if policy.limits.against_enforced is not None:
        for profile, alpha in enforced:
            _check_against(own, profile, alpha, policy.limits.against_enforced)


def _check_dose(own: Sequence[Part], most: float) -> None:
    total: defaultdict[int, float] = defaultdict(float)
    for profile, alpha in own:
        for layer, norms in profile.manifest.norms.items():
            if (dose := norms.dose(alpha)) is None:
                raise RequestError(
                    f"the access policy limits the relative dose, and {profile.name!r} does not say how long a typical "
                    f"state of layer {layer} is; make the profile anew with `trimtab profile`, or choose another",
                    param="steering.profile",
                    status=_FORBIDDEN,
                )
            total[layer] += dose
    layer = max(total, key=total.__getitem__, default=0)
    if total[layer] > most * (1 + _ROUNDING):
        raise RequestError(
            f"these strengths add {total[layer]:.3g} times the typical state at layer {layer}; the access policy "
            f"allows {most:g}; lower alpha or leave a profile out",
            param="steering.alpha",
            status=_FORBIDDEN,
        )


def _check_against(own: Sequence[Part], enforced: Profile, alpha: float, most: float) -> None:
    share = share_undone(own, enforced, alpha)
    if share > most * (1 + _ROUNDING):
        names = ", ".join(repr(profile.name) for profile, _ in own)
        raise RequestError(
            f"{names} at these strengths may undo {share:.3g} of what the server adds with {enforced.name!r}; the "
            f"access policy allows {most:g}; lower alpha or leave a profile out",
            param="steering.alpha",
            status=_FORBIDDEN,
        )
