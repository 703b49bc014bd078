"""What a sample is asked: its question, put into the prompt of the run."""

from __future__ import annotations

from pathlib import Path

from ..errors import SettingError
from .data_folder import read_data_folder

__all__ = ["QUESTION", "check_prompt", "filled", "prompt_for", "recorded"]

QUESTION = "{question}"
"""Stands for the sample's question in a prompt. As a prompt it asks the question alone."""


def prompt_for(samples: Path, given: str | None = None) -> str:
    """The prompt of a run: the given one; else that of the data.json beside the samples file; else the question alone.

    Raises:
        SettingError: the given prompt holds no "{question}". DataError: a data.json of ours that is broken.
    """
    if given is not None:
        return check_prompt(given)
    folder = read_data_folder(samples.parent)
    return QUESTION if folder is None else folder.prompt


def check_prompt(prompt: str) -> str:
    """`prompt`, when the question has a place in it.

    Raises:
        SettingError: it has none, so that every sample would be asked the same.
    """
    if QUESTION not in prompt:
        raise SettingError(
            f"the prompt {prompt[:60]!r} does not hold {QUESTION}, so every sample would be asked the same; "
            f"write {QUESTION} where the sample's question goes"
        )
    return prompt


def filled(prompt: str, question: str) -> str:
    """The text that a model is asked."""
    return prompt.replace(QUESTION, question)


def recorded(prompt: str) -> str | None:
    """How manifests write a prompt: None for the question alone."""
    return None if prompt == QUESTION else prompt
