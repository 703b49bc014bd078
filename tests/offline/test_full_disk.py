"""A disk that takes no more bytes: one sentence, nothing that was finished is lost, and the run goes on later."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from tests.offline.worlds import write_data
from trimtab.offline.cli.app import app
from trimtab.offline.evaluation.answers import Answered, AnswersFolder, RunRequest

FILE_SIZE = 6000
"""The largest file, in bytes, that the disk takes: less than a shard of states."""


def trimtab_on_a_full_disk(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trimtab.offline.cli", *map(str, words)],
        preexec_fn=_no_large_files,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as many as here: sums round by the number of threads
        capture_output=True,
        text=True,
        check=False,
    )


def _no_large_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write then fails as it does on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_rows_are_continued_after_a_full_disk_to_the_bytes_of_an_undisturbed_run(llama: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 40, pictured=False)
    command = ["represent", llama, data, "--rule=predicts:*", "--layer=1", "--batch-size=4", "--max-new-tokens=8"]
    ended = trimtab_on_a_full_disk(*command, "--out", tmp_path / "cut")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"trimtab: {tmp_path / 'cut'}/rows-")
    assert "free some space there" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    for words in (("cut", "--resume"), ("whole",)):
        again = CliRunner().invoke(app, [*map(str, command), "--out", str(tmp_path / words[0]), *words[1:]])
        assert again.exit_code == 0, again.output
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


_APPEND = """
import sys
from pathlib import Path
from trimtab.offline.evaluation.answers import Answered, AnswersFolder, RunRequest
folder = AnswersFolder(Path(sys.argv[1]), RunRequest.model_validate_json(sys.argv[2]))
for number in range(1000):
    try:
        folder.append(Answered(id=str(number), text="yes " * 20))
    except OSError:
        print(number)
        break
"""


def test_answers_that_came_before_the_disk_was_full_are_kept_and_the_torn_one_is_not(tmp_path: Path) -> None:
    request = RunRequest(
        format="pope", data="sha256:0", samples=1000, model="m", steering=None, prompt="{question}", max_tokens=8
    )
    ended = subprocess.run(
        [sys.executable, "-c", _APPEND, str(tmp_path / "run"), request.model_dump_json()],
        preexec_fn=_no_large_files,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    kept = int(ended.stdout)
    assert 10 < kept < 1000
    again = AnswersFolder(tmp_path / "run", request, resume=True)
    assert list(again.answered) == [str(number) for number in range(kept)]
    again.append(Answered(id="next", text="no"))
    again.close()
    assert list(AnswersFolder(tmp_path / "run", request, resume=True).answered)[kept:] == ["next"]
