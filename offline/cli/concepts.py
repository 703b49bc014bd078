"""The commands about concepts: `trimtab dictionary`, `trimtab choose-k` and `trimtab ground`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from trimtab.vectors import ConceptDictionary

from ..states.store import ShardedStates, load_states
from .console import quiet, say
from .show import by_reason

if TYPE_CHECKING:
    from ..findings import ChoiceFound, ConceptsFound
    from ..states.store import Skip

__all__ = ["Method", "choose_k", "dictionary", "ground"]


class Method(StrEnum):
    kmeans = "kmeans"
    mini_batch_kmeans = "mini-batch-kmeans"
    class_means = "class-means"
    semi_nmf = "semi-nmf"
    pca = "pca"
    simple = "simple"


Reps = Annotated[Path, typer.Argument(metavar="REPS", help="Folder that `trimtab represent` made.")]
Layer = Annotated[int, typer.Option("--layer", "-l", help="Decoder layer, 0-based.")]
Run = Annotated[Path, typer.Option(help="Folder for findings, which `trimtab report` shows.")]
Seed = Annotated[int, typer.Option(help="Seed (all but class-means and simple).")]
Starts = Annotated[int, typer.Option(help="Number of starts (kmeans, mini-batch-kmeans, semi-nmf).")]


def dictionary(
    reps: Reps,
    layer: Layer,
    out: Annotated[Path, typer.Option(help="Folder for the dictionary.")],
    method: Annotated[
        Method, typer.Option(help="mini-batch-kmeans reads shard by shard; class-means: the mean of each label.")
    ] = Method.kmeans,
    k: Annotated[int, typer.Option("--k", "-k", help="Number of concepts (all but class-means).")] = 20,
    seed: Seed = 0,
    n_init: Starts = 10,
    min_count: Annotated[int, typer.Option(help="Leave rarer labels out (class-means).")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there already.")] = False,
) -> None:
    """Find the concepts of a layer."""
    if method is Method.class_means:
        from ..concepts.kmeans import class_means

        made = class_means(load_states(reps, layer), min_count)
    else:
        made = _maker(ShardedStates(reps, layer), reps, method, seed, n_init, progress=True)(k)
    made.save(out, overwrite=force)
    typer.echo(f"{out}: {len(made.labels)} concepts for {len(set(made.labels))} words, from {_used(made):,} rows")
    if method is not Method.class_means and len(made.labels) < k:
        say(f"{k - len(made.labels)} of {k} concepts were empty and are left out: there are too few distinct rows")
    if silent := int((made.counts == 0).sum()):
        say(f"{silent} of {len(made.labels)} concepts are the strongest of no row; they have no label")


def choose_k(
    reps: Reps,
    layer: Layer,
    k: Annotated[list[int], typer.Option("--k", "-k", help="A number of concepts to try; repeatable.")],
    out: Run,
    method: Annotated[Method, typer.Option(help="As for `trimtab dictionary`, class-means apart.")] = Method.kmeans,
    model: Annotated[Path | None, typer.Option(help="Model folder; adds the overlap of words.")] = None,
    seed: Seed = 0,
    n_init: Starts = 10,
    name: Annotated[str, typer.Option(help="The finding's name; by default that of the folder of rows.")] = "",
) -> None:
    """Measure dictionaries of several sizes and find the knee of their reconstruction error."""
    from ..concepts.choose_k import choose_k as run
    from ..errors import SettingError
    from ..findings import write_finding
    from ..models.reader import Reader

    if method is Method.class_means:
        raise SettingError("class means have as many concepts as there are labels; use another --method")
    quiet()
    rows = ShardedStates(reps, layer)
    reader = None if model is None else Reader(model)
    if reader is not None:
        rows.manifest.request.model.check(reader.identity)
    found = run(
        rows,
        k,
        _maker(rows, reps, method, seed, n_init, progress=False),
        model=reader,
        title=f"Choice of K for {rows.manifest.request.rule}, layer {layer}, {method.value}",
        progress=True,
    )
    path = write_finding(out, name or reps.name, found)
    Console().print(_curves(found))
    typer.echo(f"{path}: {'no knee; choose by eye' if found.chosen is None else f'knee at k = {found.chosen}'}")


def ground(
    reps: Reps,
    dictionary: Annotated[Path, typer.Argument(metavar="DICTIONARY", help="Folder that `trimtab dictionary` made.")],
    model: Annotated[Path, typer.Option(help="Model folder, of the model that the rows come from.")],
    out: Run,
    data: Annotated[Path | None, typer.Option(help="The samples file of the rows; adds pictures.")] = None,
    clip: Annotated[Path | None, typer.Option(help="Folder of a CLIP model; adds the CLIPScore.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; by default the GPU where there is one.")] = None,
    name: Annotated[str, typer.Option(help="The finding's name; by default that of the dictionary's folder.")] = "",
) -> None:
    """Say what the concepts of a dictionary stand for: words, pictures, and how good the whole is."""
    from ..concepts.cards import concepts_found
    from ..findings import write_finding
    from ..models.reader import Reader
    from ..states.store import Skip

    quiet()
    loaded = ConceptDictionary.load(dictionary)
    rows = ShardedStates(reps, loaded.layer)
    found, left_out = concepts_found(loaded, rows, Reader(model, device=device), out, data=data, clip=clip)
    path = write_finding(out, name or dictionary.name, found)
    Console().print(_cards(found))
    quality = ", ".join(f"{what} {value:.3g}" for what, value in found.quality.items())
    typer.echo(f"{path}: {len(found.concepts)} concepts; {quality}")
    _say_skipped(Skip(id=sample, reason=reason) for sample, reason in left_out.items())


def _maker(
    rows: ShardedStates, reps: Path, method: Method, seed: int, n_init: int, progress: bool
) -> Callable[[int], ConceptDictionary]:
    """What makes dictionaries of k concepts; the rows are loaded at once for the methods that need all of them."""
    if method is Method.mini_batch_kmeans:
        from ..concepts.mini_batch import mini_batch_kmeans

        return lambda k: mini_batch_kmeans(rows, k, seed, n_init, progress=progress)
    from ..concepts.factors import pca, semi_nmf, simple
    from ..concepts.kmeans import kmeans

    loaded = load_states(reps, rows.layer)
    makers: dict[Method, Callable[[int], ConceptDictionary]] = {
        Method.kmeans: lambda k: kmeans(loaded, k, seed, n_init),
        Method.semi_nmf: lambda k: semi_nmf(loaded, k, seed, n_init, progress=progress),
        Method.pca: lambda k: pca(loaded, k, seed),
        Method.simple: lambda k: simple(loaded, k),
    }
    return makers[method]


def _used(made: ConceptDictionary) -> int:
    return sum(made.provenance.samples.values())


def _say_skipped(skipped: Iterable[Skip]) -> None:
    for reason, ids in by_reason(skipped).items():
        say(f"no picture on the cards for {len(ids):,} samples: {reason} (the first is {ids[0]})")


def _curves(found: ChoiceFound) -> Table:
    table = Table("k", *found.curves)
    for i, k in enumerate(found.k):
        mark = " *" if k == found.chosen else ""
        table.add_row(f"{k}{mark}", *(f"{values[i]:.4g}" for values in found.curves.values()))
    return table


def _cards(found: ConceptsFound) -> Table:
    table = Table("label", "rows", "purity", "words", "pictures")
    for card in found.concepts:
        words = ", ".join(card.words) or "–"
        table.add_row(card.label or "–", f"{card.rows:,}", f"{card.purity:.0%}", words, str(len(card.images)))
    return table
