"""The CPU form of the op is built once, or its absence is one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_LOAD = "from trimtab.plugin.model import op_cpu; op_cpu.load()"
_STEER = """
import torch
from trimtab.plugin.model import op
from trimtab.plugin.model import op_cpu
op_cpu.load()
zeros = [torch.zeros(1, *shape, dtype=dtype) for shape, dtype in
         (((3,), torch.float32), ((3,), torch.float32), ((3, 4), torch.int32), ((3,), torch.int32),
          ((), torch.float64), ((), torch.float64), ((3,), torch.float32), ((), torch.int32), ((), torch.int32))]
assert not op.steer(*zeros).any()
"""


def python(code: str, extensions: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TORCH_EXTENSIONS_DIR": str(extensions), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extensions")
    ended = python(_LOAD, folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def test_a_build_leaves_one_library_and_nothing_else(built: Path) -> None:
    assert [path.suffix for path in (built / "trimtab").iterdir()] == [".so"]


def test_what_was_built_is_loaded_without_a_compiler(built: Path) -> None:
    ended = python(_STEER, built, CXX="/bin/false", PATH="/nowhere")
    assert ended.returncode == 0, ended.stderr


def test_without_a_compiler_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    ended = python(_LOAD, tmp_path, CXX="/bin/false")
    assert "StartupError: the CPU form of trimtab's operator cannot be built; install a C++ compiler" in ended.stderr
    assert list((tmp_path / "trimtab").iterdir()) == []


def test_processes_that_start_at_once_all_load_it(tmp_path: Path) -> None:
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    running = [subprocess.Popen([sys.executable, "-c", _STEER], env=environment) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert len(list((tmp_path / "trimtab").iterdir())) == 1
