"""What a wheel of this tree holds, and which way its imports point."""

import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("plugin", "vectors", "offline")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy, since setuptools leaves its build folders beside the sources."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    finished = subprocess.run([*command, "--wheel-dir", built, source], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return zipfile.ZipFile(next(built.glob("trimtab-*.whl")))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wheel_holds_every_module_of(package: str, wheel: zipfile.ZipFile) -> None:
    modules = {f"trimtab/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / package).rglob("*.py")}
    assert modules | {f"trimtab/{package}/py.typed"} <= set(wheel.namelist())


def test_a_wheel_holds_what_the_report_is_made_from(wheel: zipfile.ZipFile) -> None:
    names = {f"trimtab/offline/report/{name}" for name in ("page.css", "page.html.j2", "page.js")}
    assert names <= set(wheel.namelist())


def test_a_wheel_holds_nothing_but_the_namespace_package(wheel: zipfile.ZipFile) -> None:
    folders = {name.split("/")[0] for name in wheel.namelist()}
    assert folders == {"trimtab", "trimtab-0.1.0.dist-info"}
    assert "trimtab/__init__.py" not in wheel.namelist()


def test_a_wheel_declares_the_entry_points(wheel: zipfile.ZipFile) -> None:
    declared = ConfigParser()
    declared.read_string(wheel.read("trimtab-0.1.0.dist-info/entry_points.txt").decode())
    assert {section: dict(declared[section]) for section in declared.sections()} == {
        "console_scripts": {"trimtab": "trimtab.offline.cli:main"},
        "torch.backends": {"trimtab_torchvision_cure": "trimtab.plugin.compat.torchvision:cure"},
        "vllm.endpoint_plugins": {"trimtab": "trimtab.plugin.http.doors:endpoint_plugin"},
        "vllm.general_plugins": {"trimtab": "trimtab.plugin:register"},
    }


def test_a_wheel_carries_the_licence(wheel: zipfile.ZipFile) -> None:
    assert b"Apache License" in wheel.read("trimtab-0.1.0.dist-info/licenses/LICENSE")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_is_importable_under_its_bare_name(package: str) -> None:
    # Asked from outside the repository, where the current folder is not on the path.
    command = [sys.executable, "-c", f"import {package}"]
    finished = subprocess.run(command, cwd=Path(sys.prefix), capture_output=True, text=True)
    assert f"No module named '{package}'" in finished.stderr
    assert find_spec(f"trimtab.{package}") is not None


def test_imports_point_one_way() -> None:
    finished = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
