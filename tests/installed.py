"""trimtab from a wheel, in an environment that has nothing of the checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("plugin", "vectors", "offline")


def built_wheel(folder: Path) -> Path:
    """A wheel, built from a copy: setuptools leaves its build folders beside the sources."""
    source, built = folder / "source", folder / "built"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), str(source))
    return next(built.glob("trimtab-*.whl"))


def environment(folder: Path, wheel: Path, packages: Iterable[Path]) -> Path:
    """A fresh virtual environment with the wheel, and the packages in other folders; its folder of programs.

    The folders are named in a .pth file, and Python reads no .pth files there: an editable install in one of them has
    no effect.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    programs = folder / "bin"
    _pip("--python", str(programs / "python"), "install", "--no-deps", "--no-index", "--no-compile", str(wheel))
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "borrowed.pth").write_text("".join(f"{borrowed}\n" for borrowed in packages))
    return programs


def needed_by(name: str) -> set[str]:
    """The distributions that an installed one needs without any extra, with all that these need."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for text in distribution(waiting.pop()).requires or []:
            requirement = Requirement(text)
            needed = _normal(requirement.name)
            if needed not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                found.add(needed)
                waiting.append(needed)
    return found


def link_distribution(name: str, folder: Path) -> None:
    """Make an installed distribution importable from a folder, too."""
    installed = distribution(name)
    for top in {file.parts[0] for file in installed.files or [] if file.parts[0] not in ("..", "__pycache__")}:
        (folder / top).symlink_to(Path(str(installed.locate_file(top))))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pip(*arguments: str) -> None:
    finished = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
