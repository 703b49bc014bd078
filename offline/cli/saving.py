"""What the commands that end in a steering profile have in common."""

from __future__ import annotations

from pathlib import Path

import typer
from pydantic import ValidationError

from trimtab.vectors import AlphaRange, Profile, save_profile

from ..errors import SettingError

__all__ = ["alpha_range", "save_and_say"]


def alpha_range(default: float, smallest: float, largest: float) -> AlphaRange:
    """The range that --alpha-default, --alpha-min and --alpha-max give.

    Raises:
        SettingError: one that contradicts itself.
    """
    try:
        return AlphaRange(default=default, min=smallest, max=largest)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SettingError(f"--alpha-default, --alpha-min, --alpha-max: {reason}") from error


def save_and_say(made: Profile, registry: Path, force: bool) -> None:
    """Save a profile to <registry>/<its name> and print a line about it."""
    folder = save_profile(made, registry / made.name, overwrite=force)
    strength = made.manifest.alpha.default
    doses = [f"{dose:.2f}" for norms in made.manifest.norms.values() if (dose := norms.dose(strength)) is not None]
    typer.echo(
        f"{folder}: {made.manifest.kind} profile, layers {', '.join(map(str, made.layers))}, "
        f"dose {', '.join(doses) or 'unknown'}, digest {made.digest[:12]}"
    )
