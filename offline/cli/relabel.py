"""`trimtab relabel`: the same states, labelled by something else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from trimtab.vectors.errors import printable

from ..errors import DataError, SettingError
from .console import say
from .options import SAMPLES_FILE, StatesFolder
from .place import NameInRun, Run, made_at, noted, read_at, slug

__all__ = ["relabel"]

_SHOWN = 8
_FILES = (".jsonl", ".json", ".csv")


def relabel(
    by: Annotated[
        str,
        typer.Option(
            metavar="truth|type|COLUMN|FILE",
            help="What labels a state: its sample's answer, type or another column in --data, or a judge's file: "
            "JSON lines or CSV with id and label. Samples without a label are left out.",
        ),
    ],
    states: StatesFolder = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the states with their new labels.")] = None,
    run: Run = None,
    name: NameInRun = None,
    data: Annotated[
        Path | None, typer.Option(help="Samples file that the states were made from.", callback=SAMPLES_FILE)
    ] = None,
) -> None:
    """Give states other labels: the truth, a column of the samples, or a judge's words."""
    from ..states.relabel import labels_of_file, labels_of_samples
    from ..states.relabel import relabel as label_anew
    from ..states.store import open_manifest

    path = Path(by)
    folder = read_at(run, "states", states, "STATES")
    into = made_at(run, "states", out, "--out", name or slug(f"{folder.name}-by-{path.stem}"))
    if path.suffix.lower() in _FILES:
        if data is not None:
            raise SettingError("--data goes with --by truth, type or a column; a judge's file names the samples itself")
        if not path.is_file():
            raise DataError(f"{path}: is no file; give a judge's file, or the name of a column without such an ending")
        labels = labels_of_file(path)
    elif data is None:
        raise SettingError(f"--by {by} needs --data, the samples file that {folder} was made from")
    else:
        labels = labels_of_samples(data, by, open_manifest(folder).request.data)
    manifest = label_anew(folder, labels, into, progress=True)
    noted(run)
    left = sum(skip.id not in labels.of for skip in manifest.skipped)
    typer.echo(
        f"{into}: {manifest.rows:,} states labelled by {labels.by.split(' sha256:')[0]}; {left:,} samples left out"
    )
    counted = Counter(labels.of.values()).most_common()
    more = f", and {len(counted) - _SHOWN:,} other labels" if len(counted) > _SHOWN else ""
    shown = ", ".join(f"{printable(label)} {count:,}" for label, count in counted[:_SHOWN])
    say(f"samples by label: {shown}{more}")
