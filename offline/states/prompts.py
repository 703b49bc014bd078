"""What a sample is asked: its question, put into the prompt of the run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import SettingError
from .data_folder import read_data_folder
from .samples import Sample

__all__ = ["QUESTION", "check_prompt", "filled", "prompt_for", "recorded", "shown"]

QUESTION = "{question}"
"""Stands for the sample's question in a prompt. As a prompt it asks the question alone."""


def prompt_for(samples: Path, given: str | None = None) -> str:
    """The prompt of a run: the given one; else that of the data.json beside the samples file; else the question alone.

    Raises:
        DataError: a data.json of ours that is broken.
    """
    if given is not None:
        return given
    folder = read_data_folder(samples.parent)
    return QUESTION if folder is None else folder.prompt


def check_prompt(prompt: str, samples: Iterable[Sample]) -> None:
    """Passes when the question has a place in the prompt, or every sample has a picture that is asked about.

    Raises:
        SettingError: neither, so that samples would be asked the very same.
    """
    if QUESTION not in prompt and any(sample.image is None for sample in samples):
        raise SettingError(
            f"the prompt {prompt[:60]!r} does not hold {QUESTION}, so all samples without a picture would be asked the "
            f"same; write {QUESTION} where the sample's question goes"
        )


def filled(prompt: str, question: str) -> str:
    """The text that a model is asked."""
    return prompt.replace(QUESTION, question)


def shown(prompt: str | None, question: str) -> str:
    """What people are shown of what was asked: the question; the prompt where it holds none.

    prompt: None is the question alone, see `recorded`.
    """
    return question if prompt is None or QUESTION in prompt else prompt


def recorded(prompt: str) -> str | None:
    """How manifests write a prompt: None for the question alone."""
    return None if prompt == QUESTION else prompt
