"""Whether an endpoint steered as it was asked to, by the headers X-Steering-* of its answers."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.vectors.asked import Asked

from .answers import Served

__all__ = ["grants", "served_by"]


def served_by(headers: Mapping[str, str]) -> Served | None:
    """Who an answer says steered it; None where it says nothing."""
    profile = headers.get("x-steering-profile")
    if profile is None:
        return None
    return Served(profile=profile, alpha=headers.get("x-steering-alpha"), digest=headers.get("x-steering-digest"))


def grants(found: Served, asked: tuple[Asked, ...]) -> bool:
    """Whether the headers name the profiles that were asked for, with a digest each, at the strengths asked for."""
    names, alphas, digests = (
        [part.strip() for part in (value or "").split(",")] for value in (found.profile, found.alpha, found.digest)
    )
    if names != [one.profile for one in asked] or len(alphas) != len(names) or not all(digests):
        return False
    try:
        strengths = [float(alpha) for alpha in alphas]
    except ValueError:
        return False
    return all(one.alpha in (None, strength) for one, strength in zip(asked, strengths, strict=True))
