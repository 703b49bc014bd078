"""Control vectors that other tools made."""

from __future__ import annotations

from pathlib import Path

from .vector import SteeringVector


def read_gguf(path: Path) -> dict[int, SteeringVector]:
    """The control vectors of a GGUF file."""
    raise NotImplementedError
