"""Ctrl-C or SIGTERM ends a long command with a word about what is kept, and the same command goes on from there."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.ctrl_c import heed_ctrl_c
from tests.offline.worlds import write_data
from trimtab.offline.cli.app import app
from trimtab.offline.states.store import open_manifest

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = 96


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("asked") / "data", SAMPLES, pictured=False)


def interrupted(command: list[str], written: Path, by: signal.Signals = signal.SIGINT) -> str:
    """What a command says that gets a signal as soon as a file is there."""
    running = subprocess.Popen(
        [sys.executable, "-m", "trimtab.offline.cli", *command],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    try:
        deadline = time.monotonic() + 240
        while not written.exists():
            assert running.poll() is None, running.communicate()[1]
            assert time.monotonic() < deadline, "it takes too long"
            time.sleep(0.01)
        running.send_signal(by)
        said = running.communicate(timeout=60)[1]
    finally:
        running.kill()
    assert running.returncode not in (0, None), said
    assert "Traceback" not in said
    return said


def again(command: list[str]) -> None:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output


def test_a_part_of_the_work_keeps_its_shards_and_goes_on(llama: Path, data: Path, tmp_path: Path) -> None:
    part = tmp_path / "out" / "part-1-of-2"
    asked = ["represent", llama, data, "--rule", "predicts:*", "-l", 1, "--batch-size", 1, "--shard", "1/2"]
    command = [*map(str, asked), "--out", str(tmp_path / "out")]
    said = interrupted(command, part / "rows-00001.safetensors")
    done = open_manifest(part).done
    assert 0 < done < SAMPLES // 2
    assert f"{part}: keeps {done} of 48 samples; run the same command with --resume to go on" in said
    again([*command, "--resume"])
    assert open_manifest(part).complete


def test_a_comparison_keeps_the_states_that_are_whole_and_goes_on(llama: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = ["shift", llama, llama, "--data", data, "--rule", "last-prompt", "-l", 1, "--k", 2, "--batch-size", 1]
    command = [*map(str, asked), "--out", str(out)]
    said = interrupted(command, out / "states" / "base" / "rows-00001.safetensors", signal.SIGTERM)
    done = open_manifest(out / "states" / "base").done
    assert 0 < done < SAMPLES
    assert f"{out}: keeps what is whole; run the same command again to go on" in said.splitlines()[-1]
    again(command)
    assert open_manifest(out / "states" / "finetuned").complete
