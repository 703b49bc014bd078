"""Rows of text files, JSON lines or CSV, each with where it stands, for messages."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError

__all__ = ["Row", "csv_rows", "json_rows", "read_text"]

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands, and its values by key or column."""


def read_text(path: Path, expected: str) -> tuple[str, str]:
    """A file's text, without a byte order mark, and the digest "sha256:<hex>" of its bytes.

    expected: what such a file should be, for messages.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig"), f"sha256:{hashlib.sha256(content).hexdigest()}"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); expected {expected}, in UTF-8") from error


def json_rows(path: Path, text: str, expected: str = "an object", otherwise: str = "") -> Iterator[Row]:
    """The objects of JSON lines; blank lines are left out. A line may hold U+2028, which ends none.

    expected, otherwise: what a line should be, and what to do where it is no JSON, for messages.

    Raises:
        DataError: a line that holds no JSON object; names it.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: is not JSON ({error}){otherwise}") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: is a JSON {type(row).__name__}; expected {expected}")
        yield where, row


def csv_rows(path: Path, text: str) -> Iterator[Row]:
    """The rows of CSV with a header, comma-separated; tab-separated where the file is called .tsv.

    Raises:
        DataError: two columns of one name, or a row with more or fewer fields than the header; names the line.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        if len(set(names)) < len(names) or not all(names):
            raise DataError(f"{path}: two columns have one name, or one has none; its first line must name each column")
        for row in reader:
            if not row:
                continue
            where = f"{path}, line {reader.line_num}"
            if len(row) != len(names):
                raise DataError(f"{where}: has {len(row)} fields; expected {len(names)}, as in its first line")
            yield where, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is not CSV ({error})") from error
