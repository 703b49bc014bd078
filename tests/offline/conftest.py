"""Random tiny models, made once for the whole run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.offline.worlds import save_llama, save_llava
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
