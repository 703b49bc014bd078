"""Which architectures were compared with transformers, and what came out: the table that `make models` writes."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

__all__ = ["Proven", "status"]


@dataclass(frozen=True)
class Proven:
    """One architecture of the table.

    implementation: "native" is vLLM's own class, "transformers" its Transformers backend. max_difference: of any
    log-probability, None where nothing could be compared. pictures: compared with a picture as well. compiled: compared
    compiled as well. reason: why it is not proven, or what holds for it alone; may be empty.
    """

    status: Literal["proven", "differs", "refused"]
    implementation: Literal["native", "transformers"]
    max_difference: float | None
    pictures: bool
    compiled: bool
    reason: str


def status(architecture: str) -> Proven | None:
    """What is known of a checkpoint's architecture, as its config.json names it; None where it was not compared."""
    row = _table().get(architecture)
    return None if row is None else Proven(**{name: row[name] for name in Proven.__dataclass_fields__})


@functools.cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(resources.files(__package__).joinpath("proven.json").read_text("utf-8"))
    return found
