"""The command `trimtab represent`: from a model and questions to states."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import show
from .console import quiet, say
from .options import (
    MODEL_FOLDER,
    SAMPLES_FILE,
    BatchSize,
    ChatTemplateArguments,
    ChatTemplateFile,
    Device,
    Label,
    Layers,
    Limit,
    Prompt,
    Resume,
    Rule,
    chat_template,
)
from .place import NameInRun, Run, made_at, noted, slug

__all__ = ["represent"]

Precision = Literal["float32", "bfloat16", "float16"]


def represent(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of the model.", callback=MODEL_FOLDER)],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Samples file: JSON lines with id, question and, optionally, image.",
            callback=SAMPLES_FILE,
        ),
    ],
    rule: Rule,
    layer: Layers,
    out: Annotated[Path | None, typer.Option(help="Folder for the states.")] = None,
    run: Run = None,
    name: NameInRun = None,
    prompt: Prompt = None,
    label: Label = "answer",
    limit: Limit = None,
    batch_size: BatchSize = 32,
    dtype: Annotated[
        Precision, typer.Option(help="Number format that the model computes in; states are float32.")
    ] = "float32",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=0, help="Longest answer, in tokens; the default depends on the rule. 0: no answer (last-prompt only)."
        ),
    ] = None,
    background: Annotated[
        int,
        typer.Option(
            min=0,
            help="States kept of the other positions of each answer, so that `trimtab profile` knows what else a "
            "profile will meet. 0: none.",
        ),
    ] = 4,
    device: Device = None,
    template: ChatTemplateFile = None,
    template_kwargs: ChatTemplateArguments = None,
    resume: Resume = False,
) -> None:
    """Answer questions and keep the states of the residual stream that a rule asks for."""
    from ..states import represent as collect
    from ..states.rules import parse

    into = made_at(run, "states", out, "--out", name or slug(rule))
    quiet()
    manifest = collect(
        model,
        data,
        parse(rule),
        layer,
        into,
        limit=limit,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        template=chat_template(template, template_kwargs),
        prompt=prompt,
        labels=label,
        max_new_tokens=max_new_tokens,
        background=background,
        resume=resume,
        progress=True,
    )
    noted(run)
    beside = f" and {manifest.background:,} background states" if manifest.background else ""
    typer.echo(
        f"{into}: {manifest.rows:,} states{beside} of {manifest.request.samples:,} samples at layers "
        f"{', '.join(map(str, manifest.request.layers))}; {len(manifest.skipped):,} samples skipped"
    )
    for reason, ids in show.by_reason(manifest.skipped).items():
        say(f"skipped {len(ids):,}: {reason} (the first is {ids[0]})")
