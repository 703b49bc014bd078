"""What the commands that end in a steering profile have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import numpy.typing as npt
import typer
from pydantic import ValidationError

from trimtab.vectors import AlphaRange, Profile, save_profile
from trimtab.vectors.card import touched_by
from trimtab.vectors.dose import largest_dose, said
from trimtab.vectors.manifest import Positions

from ..errors import SettingError
from ..progress import begins

__all__ = ["Settings", "save_and_say", "saving", "settings_of"]

_LARGE = 64 << 20
"""Bytes that a slow disk takes more than a moment for."""


class Settings(TypedDict):
    """What every maker of profiles takes: which positions, which strengths, which sentence on the card."""

    positions: Positions
    alpha: AlphaRange
    description: str


def settings_of(positions: Positions, default: float, smallest: float, largest: float, description: str) -> Settings:
    """The settings that --positions, --alpha-default, --alpha-min, --alpha-max and --description give.

    Raises:
        SettingError: strengths that contradict each other.
    """
    try:
        alpha = AlphaRange(default=default, min=smallest, max=largest)
        return {"positions": positions, "alpha": alpha, "description": description}
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SettingError(f"--alpha-default, --alpha-min, --alpha-max: {reason}") from error


def saving(path: Path, *arrays: npt.NDArray[Any]) -> None:
    """Say that arrays are being saved, where that takes more than a moment."""
    begins(f"saving {path}", show=sum(array.nbytes for array in arrays) >= _LARGE)


def save_and_say(made: Profile, registry: Path, force: bool) -> None:
    """Save a profile to <registry>/<its name> and print what it is and what it will steer."""
    saving(registry / made.name, *(array for layer in made.tensors.values() for array in layer.named.values()))
    folder = save_profile(made, registry / made.name, overwrite=force)
    typer.echo(
        f"{folder}: {made.manifest.kind} profile, layers {', '.join(map(str, made.layers))}, "
        f"dose {said(largest_dose(made))}, digest {made.digest[:12]}"
    )
    for sentence in touched_by(made):
        typer.echo(sentence)
