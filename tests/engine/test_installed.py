"""trimtab as its users have it: from a wheel, outside the checkout. And how its server ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.asking import yes_no
from tests.engine.server import Server
from tests.installed import built_wheel, environment

pytestmark = pytest.mark.engine

STOP_LIMIT_S = 120


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of a fresh environment with our wheel, which borrows all other packages."""
    folder = tmp_path_factory.mktemp("installed")
    packages = [Path(entry) for entry in sys.path if Path(entry).name == "site-packages"]
    return environment(folder / "venv", built_wheel(folder), packages)


@pytest.fixture
def outside(
    programs: Path, model: Path, profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    program = [str(programs / "trimtab-serve")]
    running = Server(tmp_path / "log", model, profiles, program=program, folder=tmp_path, fork=False)
    yield running
    if running.process.poll() is None:
        running.stop()


def test_a_wheel_serves_and_steers_outside_the_checkout_and_a_killed_engine_is_a_failure(
    outside: Server, programs: Path, tmp_path: Path
) -> None:
    found = subprocess.run(
        [programs / "python", "-c", "import trimtab.plugin as p, trimtab.vectors as v; print(p.__file__, v.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert all(Path(file).is_relative_to(programs.parent) for file in found.stdout.split())
    (plain,) = yes_no("yes", 1)
    assert outside.text(plain).startswith("yes")
    assert outside.text(plain.steered("yes-to-no")).startswith("no")

    everything = outside.processes()
    (engine,) = outside.engines()
    engine.kill()
    assert outside.process.wait(STOP_LIMIT_S) == 1
    assert not [process for process in everything if process.is_running()]
    assert "its engine died" in (tmp_path / "log").read_text()
