"""Beam search of `LLM`, where every request is steered: refused, as it is over HTTP.

Each step of it is a request of its own, whose prompt is the answer so far: what is added to answers would be left out
of all but one token.

Leans on vllm/entrypoints/llm.py: LLM.beam_search (0.29 to 0.32).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trimtab.vectors.asked import Wish

from ..compat.wrapping import wrap
from . import admission, fields

__all__ = ["install"]


def install() -> None:
    """Let `LLM.beam_search` ask first. Safe to call again."""
    from vllm.entrypoints.llm import LLM

    wrap(LLM, "beam_search", _search)


def _search(search: Callable[..., Any], llm: Any, *args: Any, **kwargs: Any) -> Any:
    with admission.refusals():
        if admission.chosen_for(Wish(), llm.llm_engine.vllm_config):
            raise fields.no_beams()
    return search(llm, *args, **kwargs)
