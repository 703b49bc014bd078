"""How much a profile adds beside what is there: the relative dose α‖v‖ / ‖h‖, and a word for it.

The words follow what was measured (docs/measured.md, one vector for all answers): up to 0.4 at most 4 % of the other
answers changed, from there to 1 up to a quarter of them, beyond 1 most of them.
"""

from __future__ import annotations

from .profile import Profile

__all__ = ["doses", "largest_dose", "said"]

_WORDS = ((0.1, "slight"), (0.4, "moderate"), (1.0, "considerable"))
_BEYOND = "large"


def doses(profile: Profile, alpha: float | None = None) -> dict[int, float]:
    """The dose at each layer whose typical ‖h‖ is known.

    alpha: the strength; the profile's default where none is given.
    """
    strength = profile.manifest.alpha.default if alpha is None else alpha
    every = {layer: norms.dose(strength) for layer, norms in profile.manifest.norms.items()}
    return {layer: dose for layer, dose in every.items() if dose is not None}


def largest_dose(profile: Profile, alpha: float | None = None) -> float | None:
    """The dose at the layer where it is the largest, see `doses`; None where it is known of no layer."""
    return max(doses(profile, alpha).values(), default=None)


def said(dose: float | None) -> str:
    """A dose for people: "2.3 times the typical state: large"; "unknown" for None.

    Under 0.1 it is slight, under 0.4 moderate, under 1 considerable, else large.
    """
    if dose is None:
        return "unknown"
    word = next((word for bound, word in _WORDS if dose < bound), _BEYOND)
    return f"{dose:.2g} times the typical state: {word}"
