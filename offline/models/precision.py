"""In which number format a model computes: its own, and float32 where the processor only emulates that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

import torch

from ..errors import ModelError

__all__ = ["SPREAD", "Precision", "device_named", "emulates_half", "resolved"]

Precision = Literal["auto", "float32", "bfloat16", "float16"]
SPREAD: Literal["auto"] = "auto"
"""As a device: over all devices and the host."""

_WITHOUT = ("DEFAULT", "NO AVX", "AVX2")
"""What torch calls processors that have no instructions for bfloat16 and float16."""


def resolved(asked: Precision, folder: Path, device: torch.device) -> str:
    """The format that a model of this folder computes in on a device: float32, bfloat16 or float16.

    "auto" is what config.json says, and float32 where it says nothing, or where the processor would only emulate it:
    slower than float32, and with fewer digits.
    """
    if asked != "auto":
        return asked
    own = _own(folder)
    return "float32" if own is None or emulates_half(device) else own


def emulates_half(device: torch.device) -> bool:
    """Whether bfloat16 and float16 are emulated on a device: on a CPU with AVX2 and no more."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in _WITHOUT


def device_named(name: str | None) -> torch.device:
    """The device of that name; without one, and for "auto", the GPU where there is one.

    Raises:
        ModelError: this machine, or this build of torch, has none of that name.
    """
    if name in (None, SPREAD):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ModelError(f"this machine or this build of torch has no device {name!r}; leave --device out") from error


def _own(folder: Path) -> str | None:
    """The dtype of config.json, that of its text model where the whole has none; None where it names none of ours."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):  # `load` says what is wrong with it
        return None
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            named = part.get("dtype") or part.get("torch_dtype")
            if named in get_args(Precision)[1:]:
                return str(named)
    return None
