"""An outcomes file: what came of requests or of units, one line each.

JSON lines or CSV. A line names an exposure (`exposure_id`, as the answer's body and header give it) or a unit (`unit`,
the pseudonym of the exposure log, or the unit itself where its key is given); `timestamp` is optional. Every other
field is a metric: a number, true or false, or nothing. `NAME_before` is the metric NAME before the experiment.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError

__all__ = ["Outcomes", "read_outcomes", "seconds"]

_OURS = ("exposure_id", "unit", "timestamp")
_CSV = ".csv"


@dataclass(frozen=True)
class Outcomes:
    """R lines. exposures, units: what each line names, "" where it does not. when: seconds since 1970, nan if unknown.

    values: float64 [R] by metric, nan where a line has none.
    """

    exposures: list[str]
    units: list[str]
    when: npt.NDArray[np.float64]
    values: Mapping[str, npt.NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.exposures)


def read_outcomes(path: Path, pseudonym: Callable[[str], str] | None = None) -> Outcomes:
    """Read an outcomes file. pseudonym: turns its units into those of the exposure log.

    Raises:
        DataError: a line is no object, names neither exposure nor unit, or holds a metric that is no number; says
            which line. There is no line at all.
    """
    exposures, units, when, values = [], [], [], dict[str, list[float]]()
    for number, line in _lines(path):
        exposure, unit = (str(line.get(name) or "") for name in _OURS[:2])
        if not (exposure or unit):
            raise DataError(
                f"{path}, line {number}: names neither exposure_id nor unit; every outcome needs one of them"
            )
        exposures.append(exposure)
        units.append(pseudonym(unit) if pseudonym and unit else unit)
        when.append(_time(path, number, line.get("timestamp")))
        for name, value in line.items():
            if name not in _OURS:
                known = values.setdefault(name, [])
                known += [math.nan] * (len(exposures) - 1 - len(known)) + [_figure(path, number, name, value)]
    if not exposures:
        raise DataError(f"{path}: holds no outcome; give JSON lines or CSV with exposure_id or unit, and metrics")
    padded = {name: known + [math.nan] * (len(exposures) - len(known)) for name, known in values.items()}
    return Outcomes(
        exposures, units, np.asarray(when), {name: np.asarray(known, np.float64) for name, known in padded.items()}
    )


def seconds(timestamp: str) -> float:
    """Seconds since 1970 of an ISO 8601 time; UTC where it names no zone.

    Raises:
        ValueError: it is none.
    """
    time = datetime.fromisoformat(timestamp)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix.lower() == _CSV:
                rows = csv.DictReader(file)
                for row in rows:
                    if None in row:
                        raise DataError(f"{path}, line {rows.line_num}: has more cells than the first line has names")
                    yield rows.line_num, row
                return
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield number, _object(path, number, text)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no UTF-8 text; give JSON lines or CSV") from error


def _object(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: is not JSON ({error}); a CSV file's name ends in .csv") from error
    if not isinstance(line, dict):
        raise DataError(f"{path}, line {number}: is no JSON object")
    return line


def _time(path: Path, number: int, value: Any) -> float:
    if value is None or value == "":
        return math.nan
    try:
        return float(value)  # a CSV file's numbers are text
    except (TypeError, ValueError):
        pass
    try:
        return seconds(value)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}, line {number}: timestamp {value!r} is no time; write ISO 8601, or seconds since 1970"
        ) from error


def _figure(path: Path, number: int, name: str, value: Any) -> float:
    if value is None or value == "":
        return math.nan
    told = {"true": 1.0, "false": 0.0}.get(value.lower()) if isinstance(value, str) else None
    try:
        figure = float(value) if told is None else told
    except (TypeError, ValueError):
        figure = math.inf
    if not math.isfinite(figure):
        raise DataError(
            f"{path}, line {number}: {name} is {value!r}; a metric is a finite number, true, false or nothing"
        )
    return figure
