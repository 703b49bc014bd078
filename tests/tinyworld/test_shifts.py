"""The shift studies of the example, whole and small."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from examples.tinyworld.data import write_split
from examples.tinyworld.export import WEIGHTS
from examples.tinyworld.finetune import Tuning
from examples.tinyworld.shifts import PUBLISHED, TASKS, Task, beside_published, fine_tuned, study
from trimtab.offline.cli.app import app
from trimtab.offline.findings import DriftFound, ShiftFound, read_findings


def test_a_study_goes_from_a_fine_tune_to_its_findings(tmp_path: Path) -> None:
    write_split(tmp_path / "dev", "dev", 16, 0)
    tuned = fine_tuned(tmp_path / "models" / "places", Tuning("places", steps=2, save_every=1, rows=1))
    answers = TASKS[1]
    task = Task("answers", answers.file, answers.rule, samples=64, watched=16)
    found = study(tmp_path, tmp_path / "dev", tuned, "places", task, 6, 0)
    written = read_findings(tmp_path)
    assert written["shift-places-answers"] == found
    assert sum(one.rows for one in found.concepts) > 20
    drift = written["drift-places-answers"]
    assert isinstance(drift, DriftFound)
    assert drift.steps == (0, 1, 2)
    reported = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert reported.exit_code == 0, reported.output

    table = beside_published({"answers": [found, found]}, 0)
    assert [table.rows[i][2] for i in table.published] == list(PUBLISHED.values())
    ours = dict(zip((row[1] for row in table.rows[2:]), table.rows[2:], strict=True))
    assert ours["magnitude"][2] == pytest.approx(found.correlations["magnitude and recovery"].value)
    assert ours["magnitude"][5] == 2 * len(found.concepts)


def test_a_finished_fine_tune_is_not_made_again_and_a_broken_off_one_is(tmp_path: Path) -> None:
    tuning = Tuning("colors", steps=2, save_every=1, rows=1)
    last = fine_tuned(tmp_path / "colors", tuning)
    stamp = (last / WEIGHTS).stat().st_mtime_ns
    assert fine_tuned(tmp_path / "colors", tuning) == last
    assert (last / WEIGHTS).stat().st_mtime_ns == stamp
    weights = (last / WEIGHTS).read_bytes()
    (last / WEIGHTS).unlink()
    assert (fine_tuned(tmp_path / "colors", tuning) / WEIGHTS).read_bytes() == weights


def test_a_correlation_that_cannot_be_had_leaves_its_cells_empty() -> None:
    table = beside_published({"captions": [ShiftFound(title="", layer=5, concepts=())]}, 0)
    assert all(row[2:5] == (None, None, None) for row in table.rows[len(PUBLISHED) :])
