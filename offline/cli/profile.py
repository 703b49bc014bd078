"""`trimtab profile`: from states, and dictionaries where there are any, to a steering profile."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trimtab.vectors import ConceptDictionary, Profile
from trimtab.vectors.manifest import Positions

from ..errors import SettingError
from .console import say
from .gating import (
    BackgroundConcepts,
    GateScope,
    LimitShare,
    MaxDistance,
    Metric,
    MostUnmeant,
    gating_of,
    parse_pairs,
)
from .options import (
    AlphaDefault,
    AlphaMax,
    AlphaMin,
    Description,
    ProfileName,
    RegistryFolder,
    StatesFolder,
    parse_mapping,
)
from .place import Run, made_at, noted, read_at
from .saving import Settings, save_and_say, settings_of

if TYPE_CHECKING:
    from ..steering import Gating

__all__ = ["profile"]


def profile(
    name: ProfileName,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", "-m", help="<original>=<target>, two words; repeatable.")
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            help="<original>=<target>, two numbers of concepts as `trimtab ground` shows them, in place of --map; "
            "repeatable."
        ),
    ] = None,
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
        Literal["coarse", "fine", "gated"] | None,
        typer.Option(
            help="Kind of the profile. coarse: one vector per layer; fine: one per concept; gated: the coarse "
            "vector, added only at the concepts of the original words. Default: fine with --dictionary, else coarse."
        ),
    ] = None,
    positions: Annotated[Positions, typer.Option(help="Which positions are steered.")] = "answer",
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Add nothing, in place of --map: a server then counts the concepts of --dictionary and shows how far "
            "they drift.",
        ),
    ] = False,
    gate: GateScope = "token",
    metric: Metric = "euclidean",
    max_distance: MaxDistance = None,
    limit: LimitShare = None,
    background_concepts: BackgroundConcepts = None,
    most_unmeant: MostUnmeant = None,
    alpha_default: AlphaDefault = 1.0,
    alpha_min: AlphaMin = 0.0,
    alpha_max: AlphaMax = 2.0,
    description: Description = "",
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace the profile if it exists, and make one that is refused otherwise, with a warning."
        ),
    ] = False,
) -> None:
    """Build a steering profile: coarse from --layer, fine or gated from --dictionary.

    A coarse profile adds one vector per layer. A fine one has a vector per concept, added where that concept is active;
    a gated one adds the coarse vector there. Both are measured on the background states of STATES: what share of the
    positions of answers they will steer, and of those that they are not meant for. What they will steer of prompts is
    not measured. With --watch, a fine profile adds nothing, and the share of each concept is measured.
    """
    into = made_at(run, "profiles", registry, "--registry")
    if run is not None and not layer and not dictionary and kind != "coarse":
        dictionary = [read_at(run, "dictionaries", None, "--dictionary")]
    _check_kind(kind, layer, dictionary, pair, watch)
    if bool(mapping) + bool(pair) + watch != 1:
        raise SettingError(
            "say what is to become what: --map of words, or --pair of concept numbers; or --watch to add nothing"
        )
    words, numbers = parse_mapping(mapping) if mapping else {}, parse_pairs(pair or ())
    folder = read_at(run, "states", states, "STATES")
    settings = settings_of(positions, alpha_default, alpha_min, alpha_max, description)
    if dictionary:
        gating = gating_of(gate, metric, max_distance, limit, background_concepts, most_unmeant, force)
        loaded = [ConceptDictionary.load(read_at(run, "dictionaries", one, "--dictionary")) for one in dictionary]
        if layer and sorted(layer) != sorted(found.layer for found in loaded):
            raise SettingError(f"--layer {layer} differs from the layers of the dictionaries; leave --layer out")
        if watch:
            if limit is not None:
                raise SettingError("--limit-share is for concepts that are steered; with --watch, use --max-distance")
            made = _watching(name, folder, loaded, gating, settings)
        else:
            made = _with_a_gate(name, folder, loaded, words, numbers, kind == "gated", gating, settings)
    else:
        from ..states import load_states
        from ..steering import coarse_profile

        made = coarse_profile(name, [load_states(folder, one, progress=True) for one in layer or []], words, **settings)
    save_and_say(made, into, force)
    noted(run)


def _with_a_gate(
    name: str,
    folder: Path,
    dictionaries: list[ConceptDictionary],
    words: dict[str, str],
    numbers: dict[int, int],
    gated: bool,
    gating: Gating,
    settings: Settings,
) -> Profile:
    """A fine or a gated profile, from words or from concept numbers; its doubts are said."""
    from ..states import load_states
    from ..states.store import load_background
    from ..steering import fine_profile, gated_profile
    from ..steering.profiles import coarse_vectors

    layers = [(load_states(folder, found.layer, progress=True), found) for found in dictionaries]
    background = [load_background(folder, found.layer) for found in dictionaries]
    positions = settings["positions"]
    if positions != "answer":
        where = "prompts" if positions in ("all", "prompt") else f"the {positions} positions of prompts"
        say(
            f"warning: states are those of answers, so it is not known what share of {where} the profile will "
            "steer, and none is refused for it, with or without --force; measure the effect with `trimtab evaluate`"
        )
    if None in background and positions in ("answer", "all"):
        say(
            f"warning: {folder} holds no background states, so it is not known what else the profile will steer; make "
            "the states again with `trimtab represent`, which keeps some, or set a --limit-share"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if gated:
            vectors = coarse_vectors([states for states, _ in layers], words)
            made = gated_profile(name, layers, list(words), vectors, background=background, gating=gating, **settings)
        else:
            made = fine_profile(name, layers, words or numbers, background=background, gating=gating, **settings)
    for warning in caught:
        say(f"warning: {warning.message}")
    return made


def _watching(
    name: str, folder: Path, dictionaries: list[ConceptDictionary], gating: Gating, settings: Settings
) -> Profile:
    """A profile that adds nothing."""
    from ..states import load_states
    from ..states.store import load_background
    from ..steering.watching import watching_profile

    layers = [(load_states(folder, found.layer, progress=True), found) for found in dictionaries]
    background = [load_background(folder, found.layer) for found in dictionaries]
    made = watching_profile(name, layers, background=background, gate=gating.gate, force=gating.force, **settings)
    if made.manifest.expected is None:
        say(
            "warning: it is not known which share of the positions each concept will get, so that a server counts them "
            "and shows no drift; watch the positions of answers, with states that `trimtab represent` kept background "
            "states of, or with states of the rule last-prompt and --gate once"
        )
    return made


def _check_kind(
    kind: str | None, layer: list[int] | None, dictionary: list[Path] | None, pair: list[str] | None, watch: bool
) -> None:
    if kind in ("fine", "gated") and not dictionary:
        raise SettingError(f"a {kind} profile needs a --dictionary; make one with `trimtab dictionary`")
    if kind == "coarse" and dictionary:
        raise SettingError("a coarse profile takes no --dictionary; leave it out, or leave out --kind coarse")
    if not dictionary and not layer:
        raise SettingError("a profile needs --layer (coarse) or --dictionary (fine); give one of the two")
    if watch and (kind not in (None, "fine") or not dictionary):
        raise SettingError("--watch counts the concepts of a fine profile; give --dictionary, and no other --kind")
    if pair and (kind == "gated" or not dictionary):
        raise SettingError("--pair speaks of the concepts of a fine profile; give --map for another kind")
