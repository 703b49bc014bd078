"""What a source of data gives, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..states.prompts import QUESTION
from ..states.samples import Sample

__all__ = ["Source"]


@dataclass(frozen=True)
class Source:
    """digest: "sha256:<hex>" of its files of text. groups: what a split must not tear apart, by sample id.

    prompt: what is asked of the format's samples unless another prompt is given.
    """

    format: str
    digest: str
    samples: tuple[Sample, ...]
    groups: Mapping[str, str]
    prompt: str = QUESTION
