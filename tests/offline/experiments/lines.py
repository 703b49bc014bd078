"""Lines of an exposure log, by hand."""

from __future__ import annotations

from typing import Any

from trimtab.vectors.experiments import Closing, Exposure

__all__ = ["closing", "exposure", "exposure_id"]


def exposure_id(number: int) -> str:
    return f"exp-{number:032x}"


def exposure(number: int, unit: str, arm: str = "control", **fields: Any) -> Exposure:
    """The exposure of that number, which is its second of the day too."""
    given = {
        "timestamp": f"2026-11-27T10:{number // 60:02d}:{number % 60:02d}.000Z",
        "exposure_id": exposure_id(number),
        "experiment": "sweep",
        "seed": "sweep-1",
        "variation": fields.get("assigned", arm),
        "unit": unit,
        "unit_source": "steering.unit",
        "assigned": arm,
        "served": arm,
        "profile": None if arm == "control" else "gender-neutral",
        "alpha": None if arm == "control" else 0.8,
        "digest": None if arm == "control" else "a" * 64,
        "plan": "0" * 64,
        "replica": "first",
        "request_id": f"chatcmpl-{number}",
    }
    return Exposure(**{**given, **fields})


def closing(number: int, reason: str = "stop", **fields: Any) -> Closing:
    return Closing(
        timestamp="2026-11-27T12:00:00.000Z", exposure_id=exposure_id(number), finish_reason=reason, **fields
    )
