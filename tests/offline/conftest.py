"""Random tiny models, and what the commands make of one, made once for the whole run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.offline.worlds import save_llama, save_llava, write_data
from trimtab.offline.cli.app import app
from trimtab.offline.models import Reader


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random text-only model."""
    return save_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model that sees."""
    return save_llava(tmp_path_factory.mktemp("models") / "llava")


@pytest.fixture(scope="session")
def llama_reader(llama: Path) -> Reader:
    return Reader(llama)


@pytest.fixture(scope="session")
def llava_reader(llava: Path) -> Reader:
    return Reader(llava)


@pytest.fixture(scope="session")
def study(llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, states of layers 1 and 3, and two dictionaries, made by the commands."""
    study = tmp_path_factory.mktemp("study")
    data = write_data(study / "data", 40, pictured=True)
    for command in (
        ("represent", llava, data, "--rule", "predicts:*", "--layer", 1, "--layer", 3, "--out", study / "reps"),
        ("dictionary", study / "reps", "--layer", 3, "--method", "kmeans", "--k", 8, "--out", study / "kmeans"),
        ("dictionary", study / "reps", "--layer", 3, "--method", "class-means", "--out", study / "means"),
    ):
        result = CliRunner().invoke(app, [str(part) for part in command])
        assert result.exit_code == 0, result.output
    return study
