"""torchvision, and whatever of vLLM and transformers needs it, imports beside any torch that this project installs."""

import subprocess
import sys

import pytest

from trimtab.plugin.compat.torchvision import needs_cure


@pytest.mark.parametrize(
    "statement",
    [
        "import torchvision; from torchvision.transforms import v2; v2.Resize(8)",
        "import vllm.model_executor.models.llava",
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


def test_importing_the_plugin_loads_neither_torch_nor_vllm() -> None:
    # torch loads the cure, and with it this package, at the end of its own import: in every process that uses torch.
    statement = (
        "import sys, trimtab.plugin; print(sorted({'torch', 'vllm', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, timeout=60, check=True)
    assert finished.stdout.strip() == "[]"
