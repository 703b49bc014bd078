"""The command `trimtab represent`: from a model and questions to states."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import SettingError
from . import show
from .console import quiet, say
from .options import (
    MODEL_FOLDER,
    SAMPLES_FILE,
    BatchSize,
    ChatTemplateArguments,
    ChatTemplateFile,
    Device,
    Draw,
    Label,
    Layers,
    Limit,
    Prompt,
    Resume,
    Rule,
    chat_template,
    json_object,
)
from .place import NameInRun, Run, made_at, noted, slug

__all__ = ["represent"]

Precision = Literal["auto", "float32", "bfloat16", "float16"]


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
    draw: Draw = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --draw and of the background states.")] = 0,
    most_per_label: Annotated[
        int | None, typer.Option(min=1, help="Keep at most this many states of each label (in each shard).")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Read every N-th sample from the I-th on, so that N processes share the work: each writes a part of "
            "--out, which is read as one folder.",
        ),
    ] = None,
    batch_size: BatchSize = 32,
    engine: Annotated[
        Literal["transformers", "vllm"],
        typer.Option(help="What runs the model. vllm: in a process of its own; much faster on many questions."),
    ] = "transformers",
    engine_args: Annotated[
        str | None,
        typer.Option(metavar="JSON", help='With vllm: arguments of vllm.LLM, such as {"tensor_parallel_size": 2}.'),
    ] = None,
    dtype: Annotated[
        Precision,
        typer.Option(
            help="Number format that the model computes in; states are float32. auto: the model's own, or float32 "
            "where the processor only emulates that."
        ),
    ] = "auto",
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
    from ..states.parts import part_of
    from ..states.rules import parse

    into = made_at(run, "states", out, "--out", name or slug(rule))
    quiet()
    arguments = json_object("--engine-args", engine_args, '{"tensor_parallel_size": 2}')
    if engine == "vllm":
        from ..states.engine import Engine

        if device is not None:
            raise SettingError("--device is for --engine transformers; vllm runs on the device that it is built for")
        if ours := {"model", "dtype"} & (arguments or {}).keys():
            raise SettingError(f"--engine-args: {min(ours)!r} is not taken from there; give MODEL and --dtype instead")
        asked = Engine(model, dtype, template=chat_template(template, template_kwargs), arguments=arguments)
    elif arguments:
        raise SettingError("--engine-args are for --engine vllm; leave them out, or choose that engine")
    manifest = collect(
        asked if engine == "vllm" else model,
        data,
        parse(rule),
        layer,
        into,
        limit=limit,
        draw=draw,
        seed=seed,
        most_per_label=most_per_label,
        part=None if shard is None else _part(shard),
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
    where = into if manifest.request.part is None else part_of(into, *manifest.request.part)
    typer.echo(
        f"{where}: {manifest.rows:,} states{beside} of {manifest.request.samples:,} samples at layers "
        f"{', '.join(map(str, manifest.request.layers))}; {len(manifest.skipped):,} samples skipped"
    )
    for reason, ids in show.by_reason(manifest.skipped).items():
        say(f"skipped {len(ids):,}: {reason} (the first is {ids[0]})")


def _part(text: str) -> tuple[int, int]:
    """(2, 4) from "2/4"."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise SettingError(f"--shard {text}: cannot be read; write i/n, such as 2/4 for the second of four")
    return int(number), int(count)
