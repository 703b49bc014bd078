"""An outcomes file: what is read, and which line is refused and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.offline.errors import DataError
from trimtab.offline.experiments import read_outcomes
from trimtab.vectors.experiments import UnitKey

LINES = """\
{"exposure_id": "exp-1", "timestamp": "2026-11-27T10:00:00.500Z", "good": true, "words": 3}

{"unit": "u", "timestamp": 1795773600.5, "good": null, "late": 0.5}
"""
CSV = """\
exposure_id,unit,timestamp,good,words,late
exp-1,,2026-11-27T10:00:00.500+00:00,True,3,
,u,1795773600.5,,,0.5
"""


def written(folder: Path, text: str | bytes, name: str = "outcomes.jsonl") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(("text", "name"), [(LINES, "o.jsonl"), (CSV, "o.csv"), (CSV.replace("\n", "\r\n"), "o.CSV")])
def test_json_lines_and_csv_say_the_same(text: str, name: str, tmp_path: Path) -> None:
    found = read_outcomes(written(tmp_path, text, name))
    assert (found.exposures, found.units) == (["exp-1", ""], ["", "u"])
    assert found.when.tolist() == [1795773600.5, 1795773600.5]
    np.testing.assert_equal(dict(found.values), {"good": [1.0, np.nan], "words": [3.0, np.nan], "late": [np.nan, 0.5]})


def test_units_get_the_pseudonyms_of_the_log(tmp_path: Path) -> None:
    key = UnitKey("k" * 32)
    found = read_outcomes(written(tmp_path, '{"unit": "user-42", "m": 1}\n'), key.pseudonym)
    assert found.units == [key.pseudonym("user-42")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no outcome"),
        ('{"m": 1}', "line 1: names neither exposure_id nor unit"),
        ('{"unit": "u", "m": 1}\n[1]', "line 2: is no JSON object"),
        ('{"unit": "u", "m": 1}\n{"unit"', "line 2: is not JSON"),
        ('{"unit": "u", "m": "many"}', "line 1: m is 'many'"),
        ('{"unit": "u", "m": NaN}', "line 1: m is nan"),
        ('{"unit": "u", "m": 1e999}', "line 1: m is inf"),
        ('{"unit": "u", "m": [1]}', r"line 1: m is \[1\]"),
        ('{"unit": "u", "timestamp": "noon", "m": 1}', "line 1: timestamp 'noon' is no time"),
        (b'{"unit": "\xff"}', "no UTF-8"),
    ],
)
def test_a_line_that_cannot_be_used_is_refused(text: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_outcomes(written(tmp_path, text))


def test_a_row_with_too_many_cells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: has more cells"):
        read_outcomes(written(tmp_path, "unit,m\nu,1,2\n", "o.csv"))
