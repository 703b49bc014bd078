"""Which architectures were compared with transformers, and how that ended: the table that `make models` writes.

A model that is not in it is served all the same: its layers are found by structure, and the self-check at start proves
that what is armed adds. What only a comparison shows is whether vLLM computes what transformers computes.
"""

from __future__ import annotations

import functools
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["Implementation", "Proven", "architecture_of", "implementation_of", "say", "status"]

logger = logging.getLogger("vllm.trimtab")

Implementation = Literal["native", "transformers"]
"""By which code vLLM runs a model: a class of its own, or the Transformers backend (`--model-impl transformers`)."""

_TABLE = Path(__file__).with_name("proven.json")


@dataclass(frozen=True)
class Proven:
    """How the comparison of an architecture ended. reason: why it was not proven, or what the proof leaves out."""

    status: Literal["proven", "differs", "refused"]
    reason: str = ""


def status(architecture: str, implementation: Implementation = "native") -> Proven | None:
    """How the comparison of a checkpoint's architecture ended; None where there was none with this implementation."""
    row = _table().get(architecture)
    if row is not None and row["implementation"] != implementation:
        row = row.get(f"by_{implementation}")
    return None if row is None else Proven(row["status"], row["reason"])


@functools.cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_TABLE.read_text()) if _TABLE.exists() else {}
    return found


def architecture_of(vllm_config: VllmConfig) -> str:
    """The checkpoint's own name, the first in its config.json, whatever class vLLM gives it."""
    named = getattr(vllm_config.model_config.hf_config, "architectures", None)
    return str(named[0]) if named else "model without a named architecture"


def implementation_of(model: nn.Module) -> Implementation:
    """Leans on vllm/model_executor/models/transformers, where the classes of that backend are (0.29 to 0.32)."""
    bases = (base.__module__ for base in type(model).__mro__)
    return (
        "transformers"
        if any(name.startswith("vllm.model_executor.models.transformers.") for name in bases)
        else "native"
    )


def say(model: nn.Module, vllm_config: VllmConfig) -> None:
    """Log one line about a model that is armed: a warning unless it is proven."""
    name, found = architecture_of(vllm_config), status(architecture_of(vllm_config), implementation_of(model))
    if found is None:
        logger.warning(
            "trimtab: %s is not proven yet: its layers were found by structure, and a check at start proves that they "
            "add. To compare it with transformers, run: trimtab-serve doctor %s --engine",
            name,
            vllm_config.model_config.model,
        )
    elif found.status == "proven":
        logger.info("trimtab: %s is proven: compared with transformers%s", name, _because(found))
    elif found.status == "differs":
        logger.warning("trimtab: %s differs from transformers without steering as well%s", name, _because(found))
    else:
        logger.warning("trimtab: %s was refused when it was compared with transformers%s", name, _because(found))


def _because(found: Proven) -> str:
    return f" ({found.reason})" if found.reason else ""
