"""`python serve.py` as a user would start it, with what suits the tiny model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from examples.tinyworld.precision import served_dtype
from trimtab.offline.tuning import Server

SERVE = Path(__file__).parents[3] / "serve.py"
MODEL_NAME = "tinyworld"
BLOCK = 32
"""Tokens a KV block: the smallest that vLLM's CPU attention takes, so that prompts of 80 tokens span several."""


def serving(model: Path, profiles: Path, log: Path, dtype: str | None = None) -> Server:
    """A server to be used as a context; its `url` starts it. dtype: of the model, by default what suits the processor.

    Its output goes to `log`.
    """
    return Server(
        model,
        profiles,
        log,
        (
            *("--dtype", dtype or served_dtype()),
            *("--max-model-len", "512", "--block-size", str(BLOCK), "--max-num-seqs", "64"),
        ),
        # The CPU backend would take most of the memory for its KV cache; this model needs next to nothing.
        {"VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")},
        program=(sys.executable, str(SERVE)),
        name=MODEL_NAME,
    )
