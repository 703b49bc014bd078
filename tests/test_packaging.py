"""What a wheel of this tree holds, and which way its imports point."""

import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.installed import PACKAGES, ROOT, built_wheel, environment, link_distribution, needed_by


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel(file: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(file)


@pytest.fixture(scope="module")
def bare(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment that holds what `pip install trimtab` installs, and no more."""
    folder = tmp_path_factory.mktemp("bare")
    packages = folder / "packages"
    packages.mkdir()
    for name in needed_by("trimtab"):
        link_distribution(name, packages)
    return environment(folder / "venv", file, [packages])


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
        "console_scripts": {
            "trimtab": "trimtab.offline.cli:main",
            "trimtab-serve": "trimtab.plugin.serve:run",
        },
        "torch.backends": {"trimtab_torchvision_cure": "trimtab.plugin.compat.torchvision:cure"},
        "vllm.endpoint_plugins": {"trimtab": "trimtab.plugin:endpoint_plugin"},
        "vllm.general_plugins": {"trimtab": "trimtab.plugin:register"},
    }


def test_a_bare_install_has_the_artefacts_and_nothing_heavy(bare: Path) -> None:
    heavy = ("torch", "vllm", "transformers", "typer")
    program = f"""
import sys, trimtab.vectors
from importlib.util import find_spec
print(trimtab.vectors.__file__)
assert not [name for name in {heavy} if find_spec(name)]
"""
    finished = subprocess.run([bare / "python", "-I", "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert Path(finished.stdout.strip()).is_relative_to(bare.parent)


@pytest.mark.parametrize(("program", "extra"), [("trimtab", "offline"), ("trimtab-serve", "gpu")])
def test_a_program_without_what_it_needs_names_the_extra(program: str, extra: str, bare: Path) -> None:
    finished = subprocess.run([bare / program, "--help"], capture_output=True, text=True)
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"{program}: ")
    assert f"pip install 'trimtab[{extra}]'" in finished.stderr
    assert finished.stderr.count("\n") == 1


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
