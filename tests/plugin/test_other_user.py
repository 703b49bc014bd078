"""As a container runs it: another user id, which has no name and no home, and a package that it cannot write."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.another_user import AS_ANOTHER, can
from trimtab.plugin.model import op_cpu

op_triton = pytest.importorskip("trimtab.plugin.model.op_triton")

ROOT = Path(__file__).parents[2]
_NOT_WRITABLE = """
import errno, os, sys
from pathlib import Path
import trimtab.plugin
folder = Path(trimtab.plugin.__file__).parent
assert str(folder).startswith(sys.argv[1]), folder
try:
    (folder / "x").touch()
except OSError:
    pass
else:
    raise AssertionError(f"{folder} can be written")
"""

pytestmark = pytest.mark.skipif(not can(*AS_ANOTHER, "true"), reason="this user may not become another")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a copy of the package, as an installation leaves it, that nobody may write."""
    folder = tmp_path_factory.mktemp("site")
    for part in ("plugin", "vectors"):
        shutil.copytree(ROOT / part, folder / "trimtab" / part, ignore=shutil.ignore_patterns("__pycache__"))
    everything = [folder, *folder.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in everything:
        path.chmod(0o700)


def run(package: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    start = f"import sys; sys.path.insert(0, {str(package)!r})\n" + _NOT_WRITABLE
    return subprocess.run(
        [*AS_ANOTHER, sys.executable, "-c", start + code, str(package)],
        cwd="/",
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_plugin_and_operator_start(package: Path) -> None:
    op_cpu.load()  # root's own, which another user may load
    ended = run(
        package,
        """
trimtab.plugin.register()
from trimtab.plugin import engine
engine.install()
assert trimtab.plugin.endpoint_plugin().name == "trimtab"
import torch
from trimtab.plugin.model.tables import SteeringTables
tables = SteeringTables({0: 2}, 3, 4, tokens=2, requests=1)
with tables.probing():
    tables.layers[0].probe(tables.probe_slot, torch.tensor([-2.0, 2.0, -2.0, 2.0]))
    assert tables.layers[0](torch.zeros(1, 4), torch.zeros(1, 4)).tolist() == [[-2, 2, -2, 2]]
""",
        VLLM_TRIMTAB="1",
        TORCH_EXTENSIONS_DIR=str(op_cpu._folder().parent),
    )
    assert ended.returncode == 0, ended.stderr


def test_where_nothing_can_be_written_a_sentence_says_what_to_set(package: Path) -> None:
    ended = run(
        package,
        """
import resource, tempfile
from trimtab.plugin.errors import StartupError
from trimtab.plugin.model import op_cpu, op_triton
def refusal(start):
    try:
        start()
    except StartupError as error:
        print(error)
refusal(op_triton.check_cache)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
tempfile.tempdir = None
refusal(op_cpu.load)
""",
        TRITON_CACHE_DIR="/proc/kernels",
    )
    assert ended.returncode == 0, ended.stderr
    kernel, operator = ended.stdout.splitlines()
    assert kernel.startswith("Triton cannot keep the kernel of trimtab's operator in /proc/kernels")
    assert kernel.endswith("set TRITON_CACHE_DIR to a folder that this user can write")
    assert "set TMPDIR to a folder that this user can write" in operator


def test_triton_keeps_its_kernel_where_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "of" / "triton"))
    op_triton.check_cache()
    assert not list((tmp_path / "of" / "triton").iterdir())
