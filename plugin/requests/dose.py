"""How much a request may add up to, so that the stream stays finite whatever it asks for.

The stream is a sum over the layers. So what a request adds is at most Σ |alpha| ‖v‖ over its profiles and the layers of
each: the bound is on that sum, not on the largest part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.vectors import Profile
from trimtab.vectors.errors import RequestError

__all__ = ["addition", "check_dose", "largest_addition"]


def largest_addition(dtype: Any) -> float:
    """What may be added to a stream of this torch dtype: a quarter of its largest number, the rest is the model's."""
    import torch

    return float(torch.finfo(dtype).max) / 4


def addition(profile: Profile, alpha: float) -> float:
    """The most that a profile adds to any number of the stream, over all its layers."""
    return abs(alpha) * sum(norms.vector for norms in profile.manifest.norms.values())


def check_dose(chosen: Sequence[tuple[Profile, float]], most: float) -> None:
    """Refuse profiles and strengths whose sum may leave the range of the stream's dtype.

    Raises:
        RequestError: with the sum and what is allowed.
    """
    total = sum(addition(profile, alpha) for profile, alpha in chosen)
    if not total <= most:  # True for NaN too
        names = ", ".join(profile.name for profile, _ in chosen)
        raise RequestError(
            f"these strengths of {names} may add {total:g} to the stream, summed over profiles and layers; allowed is "
            f"{most:g} in the model's dtype; lower alpha or leave a profile out",
            param="steering.alpha",
        )
