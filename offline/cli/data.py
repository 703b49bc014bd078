"""`trimtab data`: a data set of the field, a table or a folder of pictures, made into samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import DataError, SettingError
from .console import say
from .options import a_folder, there
from .place import NameInRun, Run, made_at, noted, slug

__all__ = ["data"]

Form = Literal["vqav2", "coco", "pope", "mm-safetybench", "csv", "parquet", "folder"]
_FILES = ("csv", "parquet")


def data(
    form: Annotated[
        Form,
        typer.Argument(
            metavar="FORMAT", help="vqav2, coco, pope, mm-safetybench, csv, parquet or folder.", show_choices=False
        ),
    ],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Folder of the data set, laid out as docs/evaluation.md says; a table; or a folder of pictures with a "
            "metadata.jsonl or metadata.csv.",
            callback=there("give the folder of a data set, or a table"),
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for train.jsonl, dev.jsonl, test.jsonl and data.json.")
    ] = None,
    run: Run = None,
    name: NameInRun = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the pictures, if they are not in SOURCE.",
            callback=a_folder("give the folder that holds the pictures"),
        ),
    ] = None,
    question_column: Annotated[
        str | None, typer.Option(help="Column of the questions.", show_default="question")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of the pictures' paths.", show_default="image or file_name")
    ] = None,
    answer_column: Annotated[
        str | None, typer.Option(help="Column of the right answers.", show_default="answer")
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="Column of the samples' names.", show_default="id, else the picture or the row's number"),
    ] = None,
    type_column: Annotated[
        str | None, typer.Option(help="Column of the types, whose shares the split keeps.", show_default="type")
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(
            help="What to ask, where the source has no questions; {NAME} stands for the row's column of that name."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What is asked, kept in data.json; {question} stands for the sample's question. Default: the data "
            "set's own, else the question alone."
        ),
    ] = None,
    contrast: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TEXT",
            help="Write each sample once per NAME, its question as TEXT says ({question} stands for it), with NAME in "
            "the column contrast; give two or more.",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="TRAIN,DEV,TEST", help="Shares of the parts; a part of share 0 is not written.")
    ] = "0.6,0.2,0.2",
    draw: Annotated[
        int | None,
        typer.Option(min=1, help="Use this many samples only, drawn with --seed; each type keeps its share."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and of --draw.")] = 0,
) -> None:
    """Make samples of a data set, split by picture into train, dev and test."""
    from ..data import parse_contrast, parse_shares, read_benchmark, read_folder, read_table, write_data
    from ..data.tables import Columns

    into = made_at(run, "data", out, "--out", name or slug(source.absolute().stem))
    shares, ways = parse_shares(split), parse_contrast(contrast or ())
    columns = Columns(question_column, image_column, answer_column, id_column, type_column, question)
    if (form in _FILES) != source.is_file():
        raise DataError(f"{source}: is {'a file' if source.is_file() else 'no file'}; {form} takes {_takes(form)}")
    if form in _FILES:
        found = read_table(source, form, columns, images)
    elif form == "folder":
        found = read_folder(source, columns, images)
    else:
        _check_no_columns(form, columns)
        found = read_benchmark(form, source, images, question)
    made = write_data(found, str(source), into, shares=shares, seed=seed, draw=draw, prompt=prompt, contrast=ways)
    counted = ", ".join(f"{count:,} {part}" for part, count in made.samples.items())
    noted(run)
    typer.echo(f"{into}: {counted} samples of {len(found.samples):,}; prompt {made.prompt!r}")
    pictures = {one.image for one in found.samples if one.image is not None}
    if missing := sum(not path.is_file() for path in pictures):
        say(f"warning: {missing:,} of {len(pictures):,} pictures are not there; their samples will be skipped")


def _takes(form: str) -> str:
    return {"csv": "a CSV or TSV file", "parquet": "a Parquet file"}.get(form, "a folder")


def _check_no_columns(form: str, columns: object) -> None:
    for name in ("question", "image", "answer", "id", "type"):
        if getattr(columns, name) is not None:
            raise SettingError(f"--{name}-column is for csv, parquet and folder; leave it out with {form}")
