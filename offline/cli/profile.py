"""`trimtab profile`: from states, and dictionaries where there are any, to a steering profile."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer

from trimtab.vectors import ConceptDictionary
from trimtab.vectors.manifest import Positions

from ..errors import SettingError
from .console import say
from .options import (
    AlphaDefault,
    AlphaMax,
    AlphaMin,
    Description,
    Force,
    ProfileName,
    RegistryFolder,
    StatesFolder,
    parse_mapping,
)
from .place import Run, made_at, noted, read_at
from .saving import save_and_say, settings_of

__all__ = ["profile"]


def profile(
    mapping: Annotated[list[str], typer.Option("--map", "-m", help="<original>=<target>, two words; repeatable.")],
    name: ProfileName,
    states: StatesFolder = None,
    registry: RegistryFolder = None,
    run: Run = None,
    layer: Annotated[
        list[int] | None,
        typer.Option(
            "--layer", "-l", min=0, help="Decoder layer, 0-based, to steer by one vector (coarse); repeatable."
        ),
    ] = None,
    dictionary: Annotated[
        list[Path] | None,
        typer.Option(
            "--dictionary",
            "-d",
            help="Dictionary of a layer to steer by one vector per concept (fine), or its name in the folder of --run; "
            "repeatable.",
        ),
    ] = None,
    kind: Annotated[
        Literal["coarse", "fine"] | None,
        typer.Option(help="Kind of the profile, as a check: --dictionary makes it fine, --layer coarse."),
    ] = None,
    positions: Annotated[Positions, typer.Option(help="Which positions are steered.")] = "answer",
    alpha_default: AlphaDefault = 1.0,
    alpha_min: AlphaMin = 0.0,
    alpha_max: AlphaMax = 2.0,
    description: Description = "",
    force: Force = False,
) -> None:
    """Build a steering profile: coarse from --layer, fine from --dictionary.

    A coarse profile adds one vector per layer. A fine one has a vector per concept, added where that concept is active.
    """
    from ..concepts.relabel import relabelled
    from ..states import load_states
    from ..steering import coarse_profile, fine_profile

    words = parse_mapping(mapping)
    into = made_at(run, "profiles", registry, "--registry")
    if run is not None and not layer and not dictionary and kind != "coarse":
        dictionary = [read_at(run, "dictionaries", None, "--dictionary")]
    _check_kind(kind, layer, dictionary)
    folder = read_at(run, "states", states, "STATES")
    settings = settings_of(positions, alpha_default, alpha_min, alpha_max, description)
    if not dictionary:
        made = coarse_profile(name, [load_states(folder, one) for one in layer or []], words, **settings)
    else:
        loaded = [ConceptDictionary.load(read_at(run, "dictionaries", one, "--dictionary")) for one in dictionary]
        if layer and sorted(layer) != sorted(found.layer for found in loaded):
            raise SettingError(f"--layer {layer} differs from the layers of the dictionaries; leave --layer out")
        pairs = [(load_states(folder, found.layer), found) for found in loaded]
        # The states may have got other labels since the dictionary was made of them; then so do its concepts.
        pairs = [
            (layer, found if found.provenance.labels == layer.manifest.request.labels else relabelled(found, layer))
            for layer, found in pairs
        ]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = fine_profile(name, pairs, words, **settings)
        for warning in caught:
            say(f"warning: {warning.message}")
    save_and_say(made, into, force)
    noted(run)


def _check_kind(kind: str | None, layer: list[int] | None, dictionary: list[Path] | None) -> None:
    if kind == "fine" and not dictionary:
        raise SettingError("a fine profile needs a --dictionary; make one with `trimtab dictionary`")
    if kind == "coarse" and dictionary:
        raise SettingError("a coarse profile takes no --dictionary; leave it out, or leave out --kind coarse")
    if not dictionary and not layer:
        raise SettingError("a profile needs --layer (coarse) or --dictionary (fine); give one of the two")
