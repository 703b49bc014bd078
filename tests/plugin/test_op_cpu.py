"""The CPU form of the op is built once, or its absence is one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab.plugin.model import op_cpu

_LOAD = "from trimtab.plugin.model import op_cpu; op_cpu.load()"
_STEER = """
import torch
from trimtab.plugin.model import op
from trimtab.plugin.model import op_cpu
op_cpu.load()
zeros = [torch.zeros(1, *shape, dtype=dtype) for shape, dtype in
         (((3,), torch.float32), ((3,), torch.float32), ((), torch.uint8), ((3, 4), torch.int32), ((3,), torch.int32),
          ((), torch.float64), ((), torch.float64), ((3,), torch.float32), ((), torch.int32), ((), torch.uint8),
          ((1,), torch.int64))]
assert not op.steer(*zeros).any()
"""


_LOGGED = """
import logging, sys
logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s")
"""


_FULL = """
import errno, os
def full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")
os.fsync = full
"""


_KNOWN = """#!/bin/sh
for out; do [ "$before" = -o ] && break; before=$out; done
case " $* " in
    *" -shared "*) cp {library} "$out" ;;
    *" -c "*) : > "$out" ;;
    *) exec {real} "$@" ;;
esac
"""


def copied(built: Path, to: Path) -> Path:
    """The built library in another folder of extensions."""
    (to / "trimtab").mkdir(mode=0o700)
    library = next((built / "trimtab").glob("*.so"))
    return Path(shutil.copy2(library, to / "trimtab" / library.name))


def python(code: str, extensions: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TORCH_EXTENSIONS_DIR": str(extensions), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def compiler(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A compiler that knows one answer: the library that the real one made, which takes it half a minute."""
    script = tmp_path_factory.mktemp("bin") / "g++"  # torch asks what it is called, and which version it is
    library = next((built / "trimtab").glob("*.so"))
    script.write_text(_KNOWN.format(library=library, real=shutil.which("g++")))
    script.chmod(0o755)
    return {"CXX": str(script)}


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
    assert not (tmp_path / "trimtab").exists()


def test_what_is_kept_is_for_this_user_alone(built: Path) -> None:
    assert [path.stat().st_mode & 0o777 for path in (built / "trimtab", *(built / "trimtab").iterdir())] == [
        0o700,
        0o600,
    ]


def test_a_library_that_was_cut_short_is_built_again_and_one_line_says_so(
    built: Path, compiler: dict[str, str], tmp_path: Path
) -> None:
    cut = copied(built, tmp_path)
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    ended = python(_LOGGED + _STEER, tmp_path, **compiler)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        f"trimtab: {cut} is not loaded, because it is cut short or changed; it is built again"
    ]
    assert op_cpu._problem(cut) is None


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda library: library.write_bytes(b""), "it is cut short or changed"),
        (lambda library: library.write_bytes(library.read_bytes()[:-1]), "it is cut short or changed"),
        (lambda library: library.write_bytes(b"\0" * library.stat().st_size), "it is cut short or changed"),
        (lambda library: library.chmod(0o620), "can be written by others"),
        (lambda library: library.parent.chmod(0o777), "can be written by others"),
        (lambda library: library.symlink_to(library.rename(library.with_suffix(".far"))), "is a link"),
        (lambda library: os.chown(library, 12345, -1), "belongs to another user"),
        (lambda library: os.chown(library.parent, 12345, -1), "belongs to another user"),
        (lambda library: library.unlink(), "cannot be read"),
    ],
)
def test_what_may_not_be_what_was_built_here_is_not_loaded(
    harm: Callable[[Path], object], problem: str, built: Path, tmp_path: Path
) -> None:
    library = copied(built, tmp_path)
    assert op_cpu._problem(library) is None
    try:
        harm(library)
    except PermissionError:
        pytest.skip("only root can give a file away")
    assert problem in str(op_cpu._problem(library))


@pytest.mark.parametrize("keep", ["a file in its place", "a full disk"])
def test_where_nothing_can_be_kept_it_steers_all_the_same(keep: str, compiler: dict[str, str], tmp_path: Path) -> None:
    extensions, code = tmp_path / "extensions", _LOGGED
    if keep == "a full disk":
        code += _FULL
    else:
        extensions.write_text("")
    ended = python(code + _STEER, extensions, TMPDIR=str(tmp_path), **compiler)
    assert ended.returncode == 0, ended.stderr
    assert "could not be kept in" in ended.stdout
    assert not [path for path in tmp_path.rglob("trimtab*") if path.name != "trimtab"]


def test_what_a_killed_build_leaves_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = "from trimtab.plugin.model import op_cpu\nwith op_cpu._scratch() as at: print(at, flush=True); input()"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", hold], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as building:
        assert building.stdout is not None
        left = Path(building.stdout.readline().strip())
        with op_cpu._scratch():
            assert left.is_dir()  # it is still being built
        building.kill()
    assert left.is_dir()
    with op_cpu._scratch() as mine:
        assert list(tmp_path.iterdir()) == [mine]


def test_processes_that_start_at_once_all_load_it(compiler: dict[str, str], tmp_path: Path) -> None:
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path), **compiler}
    running = [subprocess.Popen([sys.executable, "-c", _STEER], env=environment) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert len(list((tmp_path / "trimtab").iterdir())) == 1
