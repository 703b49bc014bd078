"""The programs of the drawn world, as the pages start them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*words: object) -> str:
    command = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_split_is_drawn_and_written_in_every_form_and_a_sheet_is_drawn(tmp_path: Path) -> None:
    split, forms, sheet = tmp_path / "split", tmp_path / "forms", tmp_path / "sheet.png"
    run("examples.tinyworld.data", split, "--split", "test", "--scenes", 3)
    assert len((split / "vqa.jsonl").read_text().splitlines()) > 3
    said = run("examples.tinyworld.formats", split, forms).splitlines()
    assert said[:-1] == [
        str(path) for path in (forms / "vqav2", forms / "coco", forms / "pope", forms / "mm-safetybench")
    ]
    assert all(any(Path(line).iterdir()) for line in said[:-1])
    run("examples.tinyworld.sheet", "--to", sheet)
    assert sheet.read_bytes() == (ROOT / "examples/tinyworld/sheet.png").read_bytes()
