"""The table of what we lean on in vLLM is true of the vLLM that is installed, and complete."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version

from trimtab.plugin.compat.seams import READ_IN, SEAMS, Seam
from trimtab.plugin.compat.versions import SUPPORTED, installed_vllm

ROOT = Path(__file__).parents[2]
OURS = {
    ".".join(path.relative_to(ROOT / "plugin").with_suffix("").parts): path.read_text()
    for path in (ROOT / "plugin").rglob("*.py")
}


def _spelt(seam: Seam) -> str:
    return f"{seam.file}:{seam.name}"


def _has(owner: object, attribute: str) -> bool:
    """Whether a class, or an instance of it, has an attribute: of its own, declared, or set in one of its methods."""
    if hasattr(owner, attribute):
        return True
    bases = owner.__mro__[:-1] if isinstance(owner, type) else (type(owner),)
    is_set = re.compile(rf"\bself\.{attribute}(: [^=]+)? = ")
    return any(
        attribute in vars(base).get("__annotations__", {}) or is_set.search(inspect.getsource(base))
        for base in bases
        if base.__module__.startswith("vllm.")
    )


@pytest.mark.smoke
@pytest.mark.parametrize("seam", SEAMS, ids=_spelt)
def test_the_installed_vllm_has(seam: Seam) -> None:
    installed = installed_vllm()
    assert installed is not None
    if installed < Version(seam.since):
        pytest.skip(f"it came with {seam.since}")
    module = importlib.import_module("vllm." + seam.file.removesuffix(".py").replace("/", "."))
    assert hasattr(module, seam.name), f"vllm/{seam.file} has no {seam.name}, which {seam.used} leans on"
    missing = [name for name in seam.attributes.split() if not _has(getattr(module, seam.name), name)]
    assert not missing, f"{seam.name} in vllm/{seam.file} has no {missing[0]}, which {seam.used} leans on"


@pytest.mark.parametrize("seam", SEAMS, ids=_spelt)
def test_a_row_names_a_seam_that_is_used(seam: Seam) -> None:
    last = seam.attributes.split() or [seam.name]
    for module in seam.used.split():
        unused = [name for name in last if not re.search(rf"\b{name}\b", OURS[module])]
        assert not unused, f"{module} no longer uses {unused[0]}: take it out of the table"


def _imports(source: str) -> Iterator[str]:
    """Names that a module imports from vLLM, at its top or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vllm":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            assert not any(alias.name.partition(".")[0] == "vllm" for alias in node.names), "import its names"


@pytest.mark.parametrize("module", OURS)
def test_nothing_is_imported_from_vllm_without_a_row(module: str) -> None:
    listed = {word for seam in SEAMS for word in (seam.name, Path(seam.file).stem)}
    missing = set(_imports(OURS[module])) - listed
    assert not missing, f"{module} imports {missing.pop()} from vLLM: add it to the table in plugin/compat/seams.py"


def test_the_range_that_is_served_begins_and_ends_with_what_was_read() -> None:
    oldest, newest = Version(READ_IN[0]), Version(READ_IN[-1])
    bounds = {bound.operator: Version(bound.version) for bound in SUPPORTED}
    assert bounds == {">=": oldest, "<": Version(f"{newest.major}.{newest.minor + 1}")}
    assert sorted(READ_IN, key=Version) == list(READ_IN)
