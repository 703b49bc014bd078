"""The model card that is written beside a profile: the Hub's front matter, then what a reader asks first."""

from __future__ import annotations

from .profile import Profile


def model_card(profile: Profile) -> str:
    """README.md of `profile`."""
    return f"# {profile.name}\n"
