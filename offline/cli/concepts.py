"""The commands about concepts: `trimtab dictionary`, `trimtab choose-k` and `trimtab ground`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.vectors import ConceptDictionary
from trimtab.vectors.concepts import Method

from ..errors import SettingError
from ..progress import begins
from .console import Plain, display, figure, quiet, say
from .options import (
    MODEL_FOLDER,
    SAMPLES_FILE,
    Device,
    FindingName,
    Findings,
    Force,
    Layer,
    StatesFolder,
)
from .place import NameInRun, Run, made_at, noted, read_at
from .saving import saving
from .show import by_reason

if TYPE_CHECKING:
    from trimtab.vectors.states import SkippedSample

    from ..findings import ChoiceFound, ConceptsFound

__all__ = ["choose_k", "dictionary", "ground"]

Seed = Annotated[int, typer.Option(help="Seed of the method (all but class-means and simple).")]
Starts = Annotated[int, typer.Option(help="Number of starts (kmeans, mini-batch-kmeans, semi-nmf).")]


def dictionary(
    layer: Layer,
    states: StatesFolder = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the dictionary.")] = None,
    run: Run = None,
    name: NameInRun = None,
    method: Annotated[
        Method,
        typer.Option(
            help="Method of finding concepts. mini-batch-kmeans reads shard by shard; class-means averages each label."
        ),
    ] = "kmeans",
    k: Annotated[int, typer.Option("--k", "-k", help="Number of concepts (all but class-means).")] = 20,
    seed: Seed = 0,
    n_init: Starts = 10,
    min_count: Annotated[int, typer.Option(help="Leave out labels of fewer states (class-means).")] = 1,
    force: Force = False,
) -> None:
    """Find the concepts of a layer."""
    from ..concepts.methods import METHODS, Making
    from ..states import ShardedStates

    chosen = METHODS[method]
    named = name or f"{method}-{k}-layer{layer}" if chosen.sized else name or f"{method}-layer{layer}"
    into = made_at(run, "dictionaries", out, "--out", named)
    # mini-batch-kmeans reads several times, and says of each time what for.
    told = method != "mini-batch-kmeans"
    blocks = ShardedStates(read_at(run, "states", states, "STATES"), layer, progress=told)
    made = chosen.make(blocks, Making(k, seed, n_init, min_count, progress=True))
    saving(into, made.centroids)
    made.save(into, overwrite=force)
    noted(run)
    used = sum(made.provenance.samples.values())
    typer.echo(f"{into}: {len(made.labels)} concepts for {len(set(made.labels))} words, from {used:,} states")
    if chosen.sized and len(made.labels) < k:
        say(f"{k - len(made.labels)} of {k} concepts were empty and are left out: there are too few distinct states")
    if silent := int((made.counts == 0).sum()):
        say(f"{silent} of {len(made.labels)} concepts are the strongest of no state; they have no label")


def choose_k(
    layer: Layer,
    k: Annotated[list[int], typer.Option("--k", "-k", help="Number of concepts to try; repeatable.")],
    states: StatesFolder = None,
    findings: Findings = None,
    run: Run = None,
    method: Annotated[Method, typer.Option(help="Method of finding concepts: any but class-means.")] = "kmeans",
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model; adds the overlap of words.", callback=MODEL_FOLDER)
    ] = None,
    seed: Seed = 0,
    n_init: Starts = 10,
    name: FindingName = "",
) -> None:
    """Measure dictionaries of several sizes and find the knee of their reconstruction error."""
    from ..concepts.choose_k import choose_k as measure
    from ..concepts.methods import METHODS, Making
    from ..findings import write_finding
    from ..models import Reader
    from ..states import ShardedStates

    chosen = METHODS[method]
    if not chosen.sized:
        raise SettingError(f"{method} has as many concepts as there are labels; use another --method")
    quiet()
    into = made_at(run, None, findings, "--findings")
    folder = read_at(run, "states", states, "STATES")
    blocks = ShardedStates(folder, layer)
    if model is not None:
        begins(f"loading {model}")
    reader = None if model is None else Reader(model)
    if reader is not None:
        blocks.manifest.request.model.check(reader.identity)
    found = measure(
        blocks,
        k,
        lambda size: chosen.make(blocks, Making(size, seed, n_init)),
        model=reader,
        title=f"Choice of K for {blocks.manifest.request.rule}, layer {layer}, {method}",
        progress=True,
    )
    path = write_finding(into, name or folder.name, found)
    noted(run)
    display(_curves(found))
    typer.echo(f"{path}: {'no knee; choose by eye' if found.chosen is None else f'knee at k = {found.chosen}'}")


def ground(
    model: Annotated[Path, typer.Option(help="Folder of the model that the states come from.", callback=MODEL_FOLDER)],
    states: StatesFolder = None,
    dictionary: Annotated[
        Path | None,
        typer.Argument(
            metavar="DICTIONARY", help="Folder that `trimtab dictionary` made, or its name in the folder of --run."
        ),
    ] = None,
    findings: Findings = None,
    run: Run = None,
    data: Annotated[
        Path | None, typer.Option(help="Samples file of the states; adds pictures.", callback=SAMPLES_FILE)
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option(help="Folder of a CLIP model; adds the CLIPScore.", callback=MODEL_FOLDER),
    ] = None,
    device: Device = None,
    name: FindingName = "",
) -> None:
    """Say what the concepts of a dictionary stand for: words, pictures, and how good the whole is."""
    from trimtab.vectors.states import SkippedSample

    from ..concepts.cards import concepts_found
    from ..findings import write_finding
    from ..models import Reader
    from ..states import ShardedStates

    quiet()
    into = made_at(run, None, findings, "--findings")
    folder = read_at(run, "dictionaries", dictionary, "DICTIONARY")
    loaded = ConceptDictionary.load(folder)
    blocks = ShardedStates(read_at(run, "states", states, "STATES"), loaded.layer, progress=True)
    begins(f"loading {model}")
    reader = Reader(model, device=device)
    found, left_out = concepts_found(loaded, blocks, reader, into, data=data, clip=clip, progress=True)
    path = write_finding(into, name or folder.name, found)
    noted(run)
    display(_cards(found))
    quality = ", ".join(f"{what} {figure(value)}" for what, value in found.quality.items())
    typer.echo(f"{path}: {len(found.concepts)} concepts; {quality}")
    _say_skipped(SkippedSample(id=sample, reason=reason) for sample, reason in left_out.items())


def _say_skipped(skipped: Iterable[SkippedSample]) -> None:
    for reason, ids in by_reason(skipped).items():
        say(f"no picture on the cards for {len(ids):,} samples: {reason} (the first is {ids[0]})")


def _curves(found: ChoiceFound) -> Plain:
    table = Plain("k", *found.curves)
    for i, k in enumerate(found.k):
        mark = " *" if k == found.chosen else ""
        table.add_row(f"{k}{mark}", *(figure(values[i]) for values in found.curves.values()))
    return table


def _cards(found: ConceptsFound) -> Plain:
    table = Plain("label", "states", "purity", "words", "pictures")
    for card in found.concepts:
        words = ", ".join(card.words) or "–"
        table.add_row(card.label or "–", f"{card.rows:,}", f"{card.purity:.0%}", words, str(len(card.images)))
    return table
