"""The command `trimtab`: from a model and questions to steering profiles, one step a command.

    trimtab represent      answer questions and keep the rows of the residual stream that a rule asks for
    trimtab dictionary     concepts of a layer, from rows
    trimtab choose-k       how good dictionaries of several sizes are
    trimtab ground         what the concepts of a dictionary stand for: words, pictures, quality
    trimtab shift          what a fine-tune did to concepts; with --watch, a monitor over a training's checkpoints
    trimtab profile        a steering profile, from rows (coarse) or rows and a dictionary (fine)
    trimtab shift-profile  a steering profile, from a shift: the base toward its fine-tune, or back
    trimtab import         a steering profile, from another tool's vectors
    trimtab evaluate       a data set of the field, asked of an endpoint, steered or not
    trimtab report         one HTML page that shows what a study found
    trimtab inspect        what a folder holds
    trimtab verify         whether a folder is whole, and made for a model

Results go to stdout, progress and warnings to stderr. Whatever is wrong is one sentence on stderr and exit code 1
(2 for a command line that cannot be read, 3 for a watched checkpoint past its threshold). torch is imported by the
commands that need it, so the others start at once.
"""

from __future__ import annotations

import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from trimtab.vectors import ConceptDictionary, ModelIdentity, read_gguf

from ..errors import DataError, SettingError
from ..states.store import LayerStates, load_states
from . import concepts as cli_concepts
from . import evaluate as cli_evaluate
from . import report as cli_report
from . import shift as cli_shift
from . import show
from .console import OneSentence, quiet, say
from .saving import Kind, Positions, alpha_range, save_and_say


class Precision(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Format(StrEnum):
    gguf = "gguf"
    pt = "pt"


app = typer.Typer(
    cls=OneSentence,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Concept dictionaries and steering profiles for language models that see.",
)

Layers = Annotated[list[int], typer.Option("--layer", "-l", help="Decoder layer, 0-based; repeatable.")]
StatesFolder = Annotated[Path, typer.Argument(metavar="REPS", help="Folder that `trimtab represent` made.")]
AlphaMax = Annotated[float, typer.Option(help="Largest strength that a request may ask for.")]
AlphaDefault = Annotated[float, typer.Option(help="Strength where a request names none.")]
AlphaMin = Annotated[float, typer.Option(help="Smallest strength; a negative one allows steering the other way.")]
Name = Annotated[str, typer.Option(help="The profile's name; its folder gets the same.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]


app.command("dictionary")(cli_concepts.dictionary)
app.command("choose-k")(cli_concepts.choose_k)
app.command("ground")(cli_concepts.ground)
app.command("shift")(cli_shift.shift)
app.command("shift-profile")(cli_shift.shift_profile)


@app.command()
def represent(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="JSON lines with id, question and, optionally, image.")],
    rule: Annotated[
        str, typer.Option(help="last-prompt, predicts:<word>,<word>, predicts:* (every word) or mean-generated.")
    ],
    layer: Layers,
    out: Annotated[Path, typer.Option(help="Folder for the rows.")],
    limit: Annotated[int | None, typer.Option(help="Use the first so many samples only.")] = None,
    batch_size: Annotated[int, typer.Option(help="Samples that are read at once.")] = 32,
    dtype: Annotated[Precision, typer.Option(help="What the model computes in; rows are float32.")] = Precision.float32,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Where an answer is cut; by default the rule says.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; by default the GPU where there is one.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue what an interrupted run left.")] = False,
) -> None:
    """Answer questions and keep the rows of the residual stream that a rule asks for."""
    from .. import represent as run
    from ..states.rules import parse

    quiet()
    manifest = run(
        model,
        data,
        parse(rule),
        layer,
        out,
        limit=limit,
        batch_size=batch_size,
        dtype=dtype.value,
        device=device,
        max_new_tokens=max_new_tokens,
        resume=resume,
        progress=True,
    )
    typer.echo(
        f"{out}: {manifest.rows:,} rows of {manifest.request.samples:,} samples at layers "
        f"{', '.join(map(str, manifest.request.layers))}; {len(manifest.skipped):,} samples skipped"
    )
    for reason, ids in show.by_reason(manifest.skipped).items():
        say(f"skipped {len(ids):,}: {reason} (the first is {ids[0]})")


@app.command()
def profile(
    reps: StatesFolder,
    kind: Annotated[Kind, typer.Option(help="coarse: one vector; fine: one a concept, added where it is active.")],
    mapping: Annotated[list[str], typer.Option("--map", "-m", help="<original word>=<target word>; repeatable.")],
    name: Name,
    out: Annotated[Path, typer.Option(help="Folder of profiles; the profile goes to <out>/<name>.")],
    layer: Annotated[
        list[int] | None,
        typer.Option("--layer", "-l", help="Layer to steer, repeatable; fine: the dictionary's."),
    ] = None,
    dictionary: Annotated[
        list[Path] | None, typer.Option("--dictionary", "-d", help="Dictionary of a layer (fine); repeatable.")
    ] = None,
    by_type: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="Samples file of the rows; --map then takes types of samples, number=yes/no."
        ),
    ] = None,
    positions: Annotated[Positions, typer.Option(help="Which positions are steered.")] = Positions.answer,
    alpha_default: AlphaDefault = 1.0,
    alpha_min: AlphaMin = 0.0,
    alpha_max: AlphaMax = 2.0,
    description: Annotated[str, typer.Option(help="A sentence for the profile's card.")] = "",
    force: Force = False,
) -> None:
    """Build a steering profile."""
    from ..concepts.kinds import relabelled
    from ..steering.profiles import coarse_profile, fine_profile, parse_mapping

    words = parse_mapping(mapping)
    settings: dict[str, Any] = {
        "positions": positions.value,
        "alpha": alpha_range(alpha_default, alpha_min, alpha_max),
        "description": description,
    }
    if kind is Kind.coarse:
        if dictionary or not layer:
            raise SettingError("a coarse profile needs --layer and takes no --dictionary")
        made = coarse_profile(name, _rows(reps, layer, by_type), words, **settings)
    else:
        if not dictionary:
            raise SettingError("a fine profile needs a --dictionary; make one with `trimtab dictionary`")
        loaded = [ConceptDictionary.load(folder) for folder in dictionary]
        if layer and sorted(layer) != sorted(found.layer for found in loaded):
            raise SettingError(f"--layer {layer} differs from the layers of the dictionaries; leave --layer out")
        pairs = list(zip(_rows(reps, [found.layer for found in loaded], by_type), loaded, strict=True))
        if by_type is not None:
            pairs = [(rows, relabelled(found, rows)) for rows, found in pairs]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = fine_profile(name, pairs, words, **settings)
        for warning in caught:
            say(f"warning: {warning.message}")
    save_and_say(made, out, force)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Another tool's vectors.")],
    model: Annotated[Path, typer.Option(help="Folder of the model that they were made for.")],
    name: Name,
    out: Annotated[Path, typer.Option(help="Folder of profiles; the profile goes to <out>/<name>.")],
    format: Annotated[
        Format | None, typer.Option(help="gguf (repeng, llama.cpp) or pt (torch); by default the file's ending.")
    ] = None,
    layer: Annotated[
        list[int] | None, typer.Option("--layer", "-l", help="Keep these layers only; repeatable. Default: all.")
    ] = None,
    positions: Annotated[Positions, typer.Option(help="Which positions are steered.")] = Positions.all,
    alpha_default: AlphaDefault = 1.0,
    alpha_min: AlphaMin = -2.0,
    alpha_max: AlphaMax = 2.0,
    description: Annotated[str, typer.Option(help="A sentence for the profile's card.")] = "",
    force: Force = False,
) -> None:
    """Make a coarse profile of another tool's vectors."""
    from ..steering.foreign import imported_profile, read_pt

    ending = (format.value if format else file.suffix.removeprefix(".")).lower()
    if ending not in (Format.gguf, Format.pt):
        raise DataError(f"{file}: has an ending that says nothing; give --format gguf or --format pt")
    made = imported_profile(
        name,
        read_gguf(file) if ending == Format.gguf else read_pt(file),
        ModelIdentity.of(model),
        source=file.name,
        layers=layer,
        positions=positions.value,
        alpha=alpha_range(alpha_default, alpha_min, alpha_max),
        description=description,
    )
    save_and_say(made, out, force)


@app.command()
def inspect(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A profile, a dictionary, a folder of rows or a run.")
    ],
) -> None:
    """Show what a folder holds."""
    Console().print(show.described(show.load_any(folder)))


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A profile, a dictionary or a folder of rows.")],
    model: Annotated[Path | None, typer.Option(help="Also check that it was made for this model folder.")] = None,
) -> None:
    """Check every byte that a folder's manifest speaks of, and for which model it was made."""
    found = show.load_any(folder)
    if model is not None:
        show.model_of(found).check(ModelIdentity.of(model))
    for_whom = f", and made for {model}" if model is not None else ""
    typer.echo(f"{folder}: {show.kind_of(found)}, whole{for_whom}")


app.command("evaluate")(cli_evaluate.evaluate)
app.command("report")(cli_report.report)


def _rows(reps: Path, layers: list[int], by_type: Path | None) -> list[LayerStates]:
    loaded = [load_states(reps, layer) for layer in layers]
    if by_type is None:
        return loaded
    from ..concepts.kinds import by_type as labelled
    from ..states.samples import read_samples

    samples = read_samples(by_type)
    if samples.digest != loaded[0].manifest.request.data:
        raise DataError(f"{by_type}: is not the samples file that {reps} was made from; give that one")
    return [labelled(rows, samples.samples) for rows in loaded]


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
