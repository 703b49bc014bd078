"""The commands about fine-tunes: `trimtab shift` and `trimtab shift-profile`."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..errors import SettingError
from .console import quiet, say
from .saving import Kind, Positions, alpha_range, save_and_say

if TYPE_CHECKING:
    from ..findings import Measured, ShiftFound
    from ..models.reader import Reader
    from ..shift.run import ShiftRun
    from ..shift.watch import Drift

__all__ = ["PAST_THRESHOLD", "Direction", "shift", "shift_profile"]

PAST_THRESHOLD = 3
"""The exit code of a watch that found a checkpoint below its threshold."""
_SETTLED = 5.0
"""Seconds without a change after which a checkpoint is taken to be written whole."""


class Direction(StrEnum):
    toward = "toward"
    back = "back"


def shift(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Folder of the original model.")],
    data: Annotated[Path, typer.Option(help="JSON lines with id, question and, optionally, image.")],
    rule: Annotated[
        str, typer.Option(help="last-prompt, predicts:<word>,<word>, predicts:* (every word) or mean-generated.")
    ],
    layer: Annotated[int, typer.Option("--layer", "-l", help="Decoder layer, 0-based.")],
    out: Annotated[Path, typer.Option(help="Folder for rows, dictionaries and findings; continued where it exists.")],
    finetuned: Annotated[
        Path | None, typer.Argument(metavar="[FINETUNED]", help="Folder of its fine-tune; or give --watch.")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="Number of concepts.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of halves, dictionaries, controls and intervals.")] = 0,
    alpha: Annotated[float, typer.Option(help="Strength of the shift in u + alpha * delta.")] = 1.0,
    limit: Annotated[int | None, typer.Option(help="Use the first so many samples only.")] = None,
    batch_size: Annotated[int, typer.Option(help="Samples that are read at once.")] = 32,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; by default the GPU where there is one.")] = None,
    watch: Annotated[
        Path | None, typer.Option(help="A training's folder of checkpoints (step-000040, checkpoint-500, …).")
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="With --watch: exit with code 3 where the mean T-Overlap in percent falls below this.")
    ] = 50.0,
    once: Annotated[bool, typer.Option("--once", help="With --watch: look at what is there, then end.")] = False,
    every: Annotated[float, typer.Option(help="With --watch: seconds between two looks.")] = 30.0,
    name: Annotated[str, typer.Option(help="The findings' name; by default the layer.")] = "",
) -> None:
    """Say what a fine-tune did to concepts, or watch a training's checkpoints (exit code 3 past the threshold)."""
    from ..models.reader import Reader
    from ..shift.run import ShiftRun
    from ..states.rules import parse

    if (finetuned is None) == (watch is None):
        raise SettingError("give either the folder of a fine-tune or --watch with a folder of checkpoints")
    quiet()
    run = ShiftRun(out, data, parse(rule), layer, k, seed, limit, batch_size, progress=True)
    original = Reader(base, device=device)
    name = name or f"layer{layer}"
    if watch is not None:
        _watch(run, original, watch, threshold, None if once else every, name)
    else:
        assert finetuned is not None
        _compare(run, original, Reader(finetuned, device=device), alpha, name)


def shift_profile(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `trimtab shift BASE FINETUNED` made.")],
    name: Annotated[str, typer.Option(help="The profile's name; its folder gets the same.")],
    out: Annotated[Path, typer.Option(help="Folder of profiles; the profile goes to <out>/<name>.")],
    kind: Annotated[
        Kind, typer.Option(help="coarse: the mean shift; fine: each concept's own, added where it is active.")
    ] = Kind.fine,
    direction: Annotated[
        Direction, typer.Option(help="toward: steers the base like the fine-tune; back: the fine-tune like the base.")
    ] = Direction.toward,
    positions: Annotated[Positions, typer.Option(help="Which positions are steered.")] = Positions.answer,
    alpha_default: Annotated[float, typer.Option(help="Strength where a request names none.")] = 1.0,
    alpha_min: Annotated[float, typer.Option(help="Smallest strength.")] = 0.0,
    alpha_max: Annotated[float, typer.Option(help="Largest strength that a request may ask for.")] = 2.0,
    description: Annotated[str, typer.Option(help="A sentence for the profile's card.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace what is there already.")] = False,
) -> None:
    """Build a profile out of a shift: steer the base toward its fine-tune, or the fine-tune back."""
    from ..shift.profile import profile_of_shift
    from ..shift.run import BASE, TUNED, dictionary_of, pairs_of

    toward = direction is Direction.toward
    pairs = pairs_of(run) if toward else pairs_of(run).swapped()
    settings: dict[str, Any] = {
        "positions": positions.value,
        "alpha": alpha_range(alpha_default, alpha_min, alpha_max),
        "description": description,
    }
    dictionary = dictionary_of(run, BASE if toward else TUNED) if kind is Kind.fine else None
    made = profile_of_shift(name, pairs, dictionary, **settings)
    save_and_say(made, out, force)


def _compare(run: ShiftRun, base: Reader, tuned: Reader, alpha: float, name: str) -> None:
    from ..findings import write_finding

    found = run.study(base, tuned, alpha)
    path = write_finding(run.out, name, found)
    console = Console()
    console.print(_concepts(found))
    console.print(_measured("correlation", found.correlations))
    console.print(_measured("cosine to the match, held out", found.controls))
    typer.echo(f"{path}: {found.note}")


def _watch(run: ShiftRun, base: Reader, folder: Path, threshold: float, every: float | None, name: str) -> None:
    from ..findings import write_finding
    from ..shift.watch import drift_found, drift_table

    title = f"Drift of {folder.name} from its original, layer {run.layer}"
    watched = run.watched(base)
    seen: set[int] = set()
    drifts: list[Drift] = []
    while True:
        for drift in run.drifts(watched, folder, seen, 0.0 if every is None else _SETTLED):
            drifts = sorted([*drifts, drift], key=lambda one: one.step)
            write_finding(run.out, name, drift_found(watched, drifts, title))
            write_finding(run.out, f"drift-{name}", drift_table(drifts, title))
            typer.echo(
                f"step {drift.step}: T-Overlap {drift.overlap:.1f} %, cosine {drift.cosine:.3f}, {drift.rows:,} rows"
            )
        if worst := [drift for drift in drifts if drift.overlap < threshold]:
            say(f"step {worst[0].step} is below the threshold: {worst[0].overlap:.1f} < {threshold:g} % T-Overlap")
            raise typer.Exit(PAST_THRESHOLD)
        if every is None:
            if not drifts:
                raise SettingError(f"{folder}: holds no checkpoint; expected folders such as step-000040")
            return
        time.sleep(every)


def _concepts(found: ShiftFound) -> Table:
    table = Table(
        "concept", "rows", "‖Δ‖", "consistency", "pairwise", "match", "cos", "→", "recovery", "T-Overlap", "→"
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


def _measured(what: str, figures: dict[str, Measured]) -> Table:
    table = Table(what, "value", "95 % interval", "n")
    for name, one in figures.items():
        table.add_row(name, f"{one.value:.3f}", f"{one.low:.3f} to {one.high:.3f}", str(one.n))
    return table
