"""Rows of a CSV, TSV or Parquet file, or of the metadata of a Hub-style folder of pictures, as samples."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, SettingError
from ..evaluation.benchmark import digest_of
from ..states.lines import Row, csv_rows, json_rows, read_text
from ..states.samples import Sample, plain
from .source import Source

__all__ = ["Columns", "read_folder", "read_table"]

_USUAL = {
    "question": ("question",),
    "image": ("image", "file_name"),
    "answer": ("answer",),
    "id": ("id",),
    "type": ("type",),
}


@dataclass(frozen=True)
class Columns:
    """Which column says what; None: the usual name, where there is such a column.

    question_text: the question where no column holds one; {name} in it stands for the row's column of that name.
    """

    question: str | None = None
    image: str | None = None
    answer: str | None = None
    id: str | None = None
    type: str | None = None
    question_text: str | None = None

    def among(self, path: Path, known: Iterable[str]) -> dict[str, str]:
        """The column of each thing that there is one for.

        Raises:
            SettingError: a column that was asked for is not there, or nothing says what to ask, or two things do.
        """
        names = list(known)
        found: dict[str, str] = {}
        for what, usual in _USUAL.items():
            asked: str | None = getattr(self, what)
            if asked is not None and asked not in names:
                raise SettingError(f"{path}: has no column {asked!r}; its columns are {', '.join(names)[:300]}")
            if name := asked or next((one for one in usual if one in names), None):
                found[what] = name
        if self.question_text is not None and "question" in found:
            raise SettingError(
                f"{path}: its column {found['question']!r} holds the questions; use --prompt to put words around them, "
                "or leave --question out"
            )
        if self.question_text is None and "question" not in found:
            raise SettingError(
                f"{path}: has no column 'question'; its columns are {', '.join(names)[:300]}; name one by "
                "--question-column, or say what to ask by --question"
            )
        return found


def read_table(path: Path, format: str, columns: Columns, images: Path | None = None) -> Source:
    """A file's rows. images: the folder that the paths of its pictures start from; None for the file's own.

    Raises:
        DataError: it cannot be read, or a row lacks something. SettingError: columns; pyarrow is not installed.
    """
    rows = list(_parquet(path) if format == "parquet" else csv_rows(path, read_text(path, "a table")[0]))
    return _source(path, format, rows, columns, images or path.parent, (path,))


def read_folder(folder: Path, columns: Columns, images: Path | None = None) -> Source:
    """A folder of pictures in the Hub's layout: metadata.jsonl or metadata.csv name them in the column file_name.

    The folders of its splits may have a metadata file each; these are put together. images: where the pictures lie
    instead, in the same folders.

    Raises:
        DataError: there is none, it cannot be read, or a row lacks something. SettingError: columns.
    """
    files = sorted(path for path in folder.rglob("metadata.*") if path.suffix in (".jsonl", ".csv"))
    if not files:
        raise DataError(f"{folder}: holds no metadata.jsonl or metadata.csv, which name its pictures by file_name")
    rows = list[Row]()
    for path in files:
        text, _ = read_text(path, "a file that names pictures")
        for where, row in csv_rows(path, text) if path.suffix == ".csv" else json_rows(path, text):
            name = row.get(columns.image or "file_name")
            if not isinstance(name, str) or not name:
                raise DataError(f"{where}: names no picture by {columns.image or 'file_name'}")
            rows.append((where, {**row, columns.image or "file_name": os.path.relpath(path.parent / name, folder)}))
    return _source(folder, "folder", rows, columns, images or folder, files)


def _source(path: Path, format: str, rows: list[Row], columns: Columns, images: Path, files: Iterable[Path]) -> Source:
    if not rows:
        raise DataError(f"{path}: holds no row")
    column = columns.among(path, dict.fromkeys(name for _, row in rows for name in row))
    seen: dict[str, str] = {}
    times: Counter[str] = Counter()
    samples = []
    for number, (where, row) in enumerate(rows, start=1):
        said = {name: text for name, value in row.items() if (text := plain(value)) is not None}
        image = _picture(row.get(column["image"]), where) if "image" in column else None
        identifier = said.get(column["id"], "") if "id" in column else ""
        if "id" in column and not identifier:
            raise DataError(f"{where}: has no {column['id']}; leave the column out to number the rows")
        if not identifier:
            base = image or str(number)
            times[base] += 1
            identifier = base if times[base] == 1 else f"{base}#{times[base]}"
        if identifier in seen:
            raise DataError(f"{where}: has the id {identifier!r} of {seen[identifier]}; ids must differ")
        seen[identifier] = where
        if "question" in column:
            question = said.get(column["question"], "")
        else:
            question = _filled(columns.question_text or "", said, where)
        if not question.strip():
            raise DataError(f"{where}: has no {column.get('question', 'question')}")
        samples.append(
            Sample(
                id=identifier,
                question=question,
                image=None if image is None else images / image,
                answer=said.get(column["answer"], "") if "answer" in column else "",
                type=said.get(column["type"], "") if "type" in column else "",
                columns={name: text for name, text in said.items() if name not in column.values()},
            )
        )
    groups = {one.id: _group(one, images) for one in samples}
    return Source(format, digest_of(*files), tuple(samples), groups)


def _group(sample: Sample, images: Path) -> str:
    return sample.question if sample.image is None else os.path.relpath(sample.image, images)


def _picture(value: object, where: str) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise DataError(f"{where}: holds a picture itself and not its path; save the pictures as files and name these")
    return value


def _filled(text: str, said: Mapping[str, str], where: str) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in said:
            raise DataError(
                f"{where}: has no {match[1]!r}, which --question asks for; its columns are {', '.join(said)}"
            )
        return said[match[1]]

    return re.sub(r"\{(\w+)\}", value, text)


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise SettingError(
            f"{path}: Parquet is read by pyarrow, which is not installed; pip install pyarrow, or save it as CSV"
        ) from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0][:200]})") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path}, row {number}", row
