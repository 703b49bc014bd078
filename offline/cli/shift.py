"""The commands about fine-tunes: `trimtab shift`, `trimtab watch` and `trimtab shift-profile`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trimtab.vectors.manifest import Positions

from ..errors import SettingError
from ..progress import begins
from .console import Plain, display, keeping, quiet, say
from .options import (
    MODEL_FOLDER,
    AlphaDefault,
    AlphaMax,
    AlphaMin,
    BatchSize,
    ChatTemplateArguments,
    ChatTemplateFile,
    Description,
    Device,
    FindingName,
    Force,
    Layer,
    Limit,
    ProfileName,
    Prompt,
    RegistryFolder,
    Rule,
    Samples,
    a_folder,
    chat_template,
)
from .place import Run, made_at, noted
from .saving import save_and_say, settings_of

if TYPE_CHECKING:
    from ..findings import Measured, ShiftFound
    from ..models import Reader
    from ..shift import ShiftRun
    from ..shift.watch import Drift

__all__ = ["PAST_THRESHOLD", "shift", "shift_profile", "watch"]

PAST_THRESHOLD = 3
"""The exit code of a watch that found a checkpoint below its threshold."""
_SETTLED = 5.0
"""Seconds without a change after which a checkpoint is taken to be written whole."""


Base = Annotated[Path, typer.Argument(metavar="BASE", help="Folder of the original model.", callback=MODEL_FOLDER)]
RunFolder = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for states, dictionaries and findings; an existing run is continued."),
]
Concepts = Annotated[int, typer.Option("--k", "-k", help="Number of concepts.")]
Seed = Annotated[int, typer.Option(help="Seed of halves, dictionaries, controls and intervals.")]


def shift(
    base: Base,
    finetuned: Annotated[
        Path, typer.Argument(metavar="FINETUNED", help="Folder of its fine-tune.", callback=MODEL_FOLDER)
    ],
    data: Samples,
    rule: Rule,
    layer: Layer,
    out: RunFolder = None,
    run: Run = None,
    k: Concepts = 20,
    seed: Seed = 0,
    alpha: Annotated[float, typer.Option(help="Strength of the shift in u + alpha * delta.")] = 1.0,
    prompt: Prompt = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    device: Device = None,
    template: ChatTemplateFile = None,
    template_kwargs: ChatTemplateArguments = None,
    name: FindingName = "",
) -> None:
    """Say what a fine-tune did to the concepts of a model, with controls on held-out samples."""
    from ..findings import write_finding
    from ..models import Reader
    from ..shift import ShiftRun
    from ..states.rules import parse

    into = made_at(run, None, out, "--out")
    quiet()
    study = ShiftRun(into, data, parse(rule), layer, k, seed, limit, batch_size, progress=True, prompt=prompt)
    with keeping(lambda: f"{into}: keeps what is whole; run the same command again to go on"):
        begins(f"loading {base}")
        original = Reader(base, device=device, template=chat_template(template, template_kwargs))
        begins(f"loading {finetuned}")
        found = study.study(original, original.like(finetuned), alpha)
    path = write_finding(into, name or f"layer{layer}", found)
    noted(run)
    display(_concepts(found))
    display(_measured("correlation", found.correlations))
    display(_measured("cosine to the match, held out", found.controls))
    typer.echo(f"{path}: {found.note}")


def watch(
    base: Base,
    training: Annotated[
        Path,
        typer.Argument(
            metavar="TRAINING",
            help="A training's folder of checkpoints (step-000040, checkpoint-500, …).",
            callback=a_folder("give the one that the training writes its checkpoints to"),
        ),
    ],
    data: Samples,
    rule: Rule,
    layer: Layer,
    out: RunFolder = None,
    run: Run = None,
    threshold: Annotated[
        float, typer.Option(help="Exit with code 3 when the mean T-Overlap, in percent, falls below this.")
    ] = 50.0,
    once: Annotated[bool, typer.Option("--once", help="Check the checkpoints that exist, then exit.")] = False,
    every: Annotated[float, typer.Option(min=0, help="Seconds between two checks.")] = 30.0,
    k: Concepts = 20,
    seed: Seed = 0,
    prompt: Prompt = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    device: Device = None,
    template: ChatTemplateFile = None,
    template_kwargs: ChatTemplateArguments = None,
    name: FindingName = "",
) -> None:
    """Hold a training's checkpoints against the original, and exit with code 3 when its concepts are lost."""
    from ..models import Reader
    from ..shift import ShiftRun
    from ..states.rules import parse

    into = made_at(run, None, out, "--out")
    quiet()
    study = ShiftRun(into, data, parse(rule), layer, k, seed, limit, batch_size, progress=True, prompt=prompt)
    noted(run)
    with keeping(lambda: f"{into}: keeps what is whole; run the same command again to go on"):
        begins(f"loading {base}")
        original = Reader(base, device=device, template=chat_template(template, template_kwargs))
        _watch(study, original, training, threshold, None if once else every, name or f"layer{layer}")


def shift_profile(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Folder that `trimtab shift` made.",
            callback=a_folder("give the folder that `trimtab shift BASE FINETUNED` made"),
        ),
    ],
    name: ProfileName,
    registry: RegistryFolder = None,
    kind: Annotated[
        Literal["coarse", "fine"],
        typer.Option(
            help="Kind of the profile. coarse: the mean shift; fine: each concept's own, added where it is active."
        ),
    ] = "fine",
    direction: Annotated[
        Literal["toward", "back"],
        typer.Option(help="toward: steers the base like the fine-tune; back: the fine-tune like the base."),
    ] = "toward",
    positions: Annotated[Positions, typer.Option(help="Which positions are steered.")] = "answer",
    alpha_default: AlphaDefault = 1.0,
    alpha_min: AlphaMin = 0.0,
    alpha_max: AlphaMax = 2.0,
    description: Description = "",
    force: Force = False,
) -> None:
    """Build a profile out of a shift: steer the base toward its fine-tune, or the fine-tune back."""
    from ..shift import profile_of_shift
    from ..shift.run import BASE, TUNED, dictionary_of, pairs_of

    toward = direction == "toward"
    pairs = pairs_of(run) if toward else pairs_of(run).swapped()
    settings = settings_of(positions, alpha_default, alpha_min, alpha_max, description)
    dictionary = dictionary_of(run, BASE if toward else TUNED) if kind == "fine" else None
    save_and_say(profile_of_shift(name, pairs, dictionary, **settings), registry or run / "profiles", force)
    noted(None if registry else run)


def _watch(run: ShiftRun, base: Reader, folder: Path, threshold: float, every: float | None, name: str) -> None:
    from ..findings import write_finding
    from ..shift.training import Training
    from ..shift.watch import drift_found, drift_table

    title = f"Drift of {folder.name} from its original, layer {run.layer}"
    watched = run.watched(base)
    training = Training(folder, say)
    drifts: list[Drift] = []
    while True:
        for drift in run.drifts(watched, training, 0.0 if every is None else _SETTLED):
            drifts = sorted([*drifts, drift], key=lambda one: one.step)
            write_finding(run.out, name, drift_found(watched, drifts, title))
            write_finding(run.out, f"drift-{name}", drift_table(drifts, title))
            typer.echo(
                f"step {drift.step}: T-Overlap {drift.overlap:.1f} %, cosine {drift.cosine:.3f}, "
                f"{drift.states:,} states"
            )
        if worst := [drift for drift in drifts if drift.overlap < threshold]:
            say(f"step {worst[0].step} is below the threshold: {worst[0].overlap:.1f} < {threshold:g} % T-Overlap")
            raise typer.Exit(PAST_THRESHOLD)
        if every is None:
            if not drifts:
                raise SettingError(f"{folder}: holds no checkpoint; expected folders such as step-000040")
            return
        time.sleep(every)


def _concepts(found: ShiftFound) -> Plain:
    table = Plain(
        "concept", "states", "‖Δ‖", "consistency", "pairwise", "match", "cos", "→", "recovery", "T-Overlap", "→"
    )
    for one in found.concepts:
        table.add_row(
            one.label,
            f"{one.rows:,}",
            f"{one.magnitude:.2f}",
            f"{one.consistency:.2f}",
            f"{one.pairwise_consistency:.2f}",
            one.match,
            f"{one.cosine_before:.3f}",
            f"{one.cosine_after:.3f}",
            "–" if one.recovery is None else f"{one.recovery:.3f}",
            f"{one.overlap_before:.0f}",
            f"{one.overlap_after:.0f}",
        )
    return table


def _measured(what: str, figures: dict[str, Measured]) -> Plain:
    table = Plain(what, "value", "95 % interval", "n")
    for name, one in figures.items():
        table.add_row(name, f"{one.value:.3f}", f"{one.low:.3f} to {one.high:.3f}", str(one.n))
    return table
