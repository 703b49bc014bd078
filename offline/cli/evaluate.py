"""`trimtab evaluate`: a data set of the field, or samples of one's own, asked of an endpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import DataError, SettingError
from .console import Plain, display, figure, keeping, say
from .endpoints import address, key_in
from .options import Resume, a_folder, parse_mapping, there
from .place import NameInRun, Run, command_line, made_at, noted, read_at, slug

if TYPE_CHECKING:
    from ..evaluation.benchmark import Benchmark
    from ..evaluation.gender import Lexicon
    from ..evaluation.results import Results

__all__ = ["evaluate"]


_WIDTH = 140
"""Columns of a table that goes to a file: what intervals need."""

Dataset = Literal["samples", "vqav2", "coco", "pope", "mm-safetybench"]


def evaluate(
    dataset: Annotated[
        Dataset,
        typer.Argument(
            metavar="DATASET", help="samples (your own), vqav2, coco, pope or mm-safetybench.", show_choices=False
        ),
    ],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder of the data set's files, laid out as docs/evaluation.md says; with samples, the samples file.",
            callback=there("give the folder of a data set, or a samples file"),
        ),
    ],
    base_url: Annotated[str, typer.Option(help="Address of the endpoint, up to and including /v1.")],
    served_model_name: Annotated[str, typer.Option(help="The name under which the endpoint serves the model.")],
    out: Annotated[Path | None, typer.Option(help="Folder for answers and results.")] = None,
    run: Run = None,
    name: NameInRun = None,
    steering: Annotated[
        str | None, typer.Option(help="A profile's name, or JSON as in the field `steering` of requests.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="The --out of an unsteered run of the same data, to compare with; with --run its name in there."
        ),
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map", "-m", help="<original>=<target>, two answers: what the steering is meant to change; repeatable."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the pictures, if they are not in FOLDER.",
            callback=a_folder("give the folder that holds the pictures"),
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What is asked; {question} stands for the sample's question. Default: the data set's own prompt."
        ),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    draw: Annotated[
        int | None, typer.Option(help="Use this many samples only, drawn with --seed; each type keeps its share.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of --draw.")] = 0,
    captions: Annotated[
        bool, typer.Option("--captions", help="samples: judge the answers by their gendered and neutral words.")
    ] = False,
    gendered: Annotated[
        str | None, typer.Option(help="Captions: gendered words, separated by commas, instead of the built-in list.")
    ] = None,
    neutral: Annotated[
        str | None, typer.Option(help="Captions: neutral words, separated by commas, instead of the built-in list.")
    ] = None,
    refusal: Annotated[
        list[str] | None, typer.Option(help="mm-safetybench: a further phrase that counts as a refusal; repeatable.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Number of requests at the same time.")] = 32,
    timeout: Annotated[float, typer.Option(min=1, help="Longest time for one request, in seconds.")] = 120.0,
    patience: Annotated[
        float, typer.Option(min=0, help="How long a failing request is tried again, in seconds.")
    ] = 300.0,
    max_refused: Annotated[
        int | None,
        typer.Option(
            min=0, help="Stop when the endpoint refuses more samples than this.", show_default="1 %, at least 10"
        ),
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the environment variable that holds the key.")
    ] = None,
    resume: Resume = False,
) -> None:
    """Ask an endpoint a data set's questions, steered or not, and measure the answers."""
    from trimtab.vectors.asked import read_text

    from ..evaluation.answers import AnswersFolder, RunRequest
    from ..evaluation.endpoint import Endpoint, ask_all
    from ..evaluation.made_with import prompt_doubts
    from ..evaluation.results import Run as Answered
    from ..evaluation.results import check_alike, compared, labels_of, read_run, results, write_results
    from ..states.subset import stratified

    wanted = None if steering is None else read_text(steering)
    meant = parse_mapping(mapping) if mapping else {}
    if meant and against is None:
        raise SettingError("--map needs --against: what turned into what is told by the unsteered run's answers")
    if draw is not None and draw < 1:
        raise SettingError(f"--draw {draw}: must be 1 or more")
    into = made_at(run, "evaluations", out, "--out", name or _default_name(dataset, wanted))
    other = read_run(read_at(run, "evaluations", against, "--against")) if against else None
    endpoint = Endpoint(
        address(base_url), key_in(api_key_env, "--api-key-env"), concurrency, timeout, patience, max_refused
    )
    lexicon = _lexicon(dataset, captions, _words(gendered), _words(neutral))
    benchmark = _read(dataset, folder, images, lexicon, tuple(refusal or ()))
    samples = benchmark.samples if draw is None else stratified(benchmark.samples, draw, seed)
    request = RunRequest(
        format=dataset,
        data=benchmark.digest,
        samples=len(samples),
        seed=seed if len(samples) < len(benchmark.samples) else None,
        model=served_model_name,
        steering=wanted,
        prompt=benchmark.prompt if prompt is None else prompt,
        max_tokens=benchmark.most_tokens if max_tokens is None else max_tokens,
    )
    _check(request.samples, request.max_tokens)
    if other:
        check_alike(other.request, request)
        labels_of(benchmark, meant, other)
    answers = AnswersFolder(into, request, resume=resume)
    for doubt in prompt_doubts(endpoint, wanted, request.prompt) if wanted is not None else ():
        say(f"warning: {doubt}")
    try:
        with keeping(
            lambda: (
                f"{into}: keeps {len(answers.answered):,} of {len(samples):,} answers; run the same command with "
                "--resume to go on"
            )
        ):
            ask_all(endpoint, samples, answers, progress=True, warn=say)
    finally:
        answers.close()
    finished = Answered(request, answers.answered, answers.served)
    command = command_line(sys.argv[1:])
    found = compared(benchmark, other, finished, meant, command) if other else results(benchmark, finished, command)
    path = write_results(into, dataset, found)
    noted(run)
    _show(found, path)


def _read(
    dataset: Dataset,
    folder: Path,
    images: Path | None,
    lexicon: Lexicon | None,
    refusals: tuple[str, ...],
) -> Benchmark:
    from ..evaluation.datasets.coco import read_coco
    from ..evaluation.datasets.mm_safetybench import read_mm_safetybench
    from ..evaluation.datasets.own import read_own
    from ..evaluation.datasets.pope import read_pope
    from ..evaluation.datasets.vqav2 import read_vqav2

    if dataset != "mm-safetybench" and refusals:
        raise SettingError(f"--refusal is for mm-safetybench; leave it out with {dataset}")
    if dataset == "samples":
        if images is not None:
            raise SettingError("--images: a samples file names its pictures itself; leave it out with samples")
        return read_own(folder, lexicon)
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; give the folder of the data set {dataset}")
    match dataset:
        case "vqav2":
            return read_vqav2(folder, images)
        case "coco":
            return read_coco(folder, images, lexicon)
        case "pope":
            return read_pope(folder, images)
        case "mm-safetybench":
            return read_mm_safetybench(folder, images, refusals)


def _lexicon(dataset: Dataset, captions: bool, gendered: tuple[str, ...], neutral: tuple[str, ...]) -> Lexicon | None:
    """The words by which captions are judged; None where answers are judged otherwise."""
    from ..evaluation.gender import GENDERED, NEUTRAL, Lexicon

    if captions and dataset != "samples":
        raise SettingError(f"--captions: says what samples are; leave it out with {dataset}")
    if dataset == "coco" or captions:
        return Lexicon(gendered or GENDERED, neutral or NEUTRAL)
    if gendered or neutral:
        more = "; add --captions" if dataset == "samples" else f"; leave them out with {dataset}"
        raise SettingError(f"--gendered and --neutral are for captions{more}")
    return None


def _default_name(dataset: str, steering: Any) -> str:
    """Such as "coco-plain" or "coco-gender-neutral-0.8"."""
    from trimtab.vectors.asked import parse

    asked = [part for one in parse(steering) for part in (one.profile, one.alpha) if part is not None]
    return slug("-".join(map(str, [dataset, *(asked or ["plain"])])), longest=80)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip().lower() for word in (text or "").split(",") if word.strip())


def _check(samples: int, max_tokens: int) -> None:
    if samples < 1 or max_tokens < 1:
        raise SettingError(f"{samples} samples and {max_tokens} tokens asked for; both must be 1 or more")


def _show(found: Results, path: Path) -> None:
    from rich.box import SIMPLE_HEAD

    table = Plain(title=found.table.title, box=SIMPLE_HEAD, title_justify="left")
    for at, column in enumerate(found.table.columns):
        table.add_column(column, justify="left" if at == 0 else "right", no_wrap=at > 0)
    for row in found.table.rows:
        table.add_row(*(figure(cell) if isinstance(cell, float) else cell or "" for cell in row))
    display(table, width=_WIDTH)
    typer.echo(str(path))
    for reason, count in found.content["skipped"].items():
        say(f"skipped {count:,}: {reason}")
    if cut := found.content["cut_at_max_tokens"]:
        say(f"{cut:,} answers were cut at {found.content['request']['max_tokens']} tokens; see --max-tokens")
    for warning in found.content["warnings"]:
        say(f"warning: {warning}")
    for note in found.content["notes"]:
        say(note)
    if broken := found.content.get("broken"):
        say(
            f"{len(broken):,} answers are broken: they lost or gained other words, or repeat themselves, as "
            f"{broken[0]}; {path} lists them"
        )
