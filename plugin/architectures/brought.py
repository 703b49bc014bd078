"""Registers the models that this vLLM lacks, in engines that ask for trimtab.

Leans on vllm/model_executor/models/registry.py: ModelRegistry.register_model and get_supported_archs, official
(0.29 to 0.32).
"""

from __future__ import annotations

__all__ = ["BROUGHT", "register"]

BROUGHT = {"Idefics2ForConditionalGeneration": f"{__package__}.idefics2:Idefics2ForConditionalGeneration"}
"""Architecture of a checkpoint → where its class is; vLLM imports it when it is needed."""


def register() -> None:
    """Register what vLLM, or another plugin, does not have. Safe to call again."""
    from vllm import ModelRegistry

    for architecture in BROUGHT.keys() - ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(architecture, BROUGHT[architecture])
