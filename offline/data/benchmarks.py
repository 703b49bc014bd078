"""The data sets of the field as samples, through the readers that `evaluate` has."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..errors import SettingError
from ..evaluation.benchmark import Benchmark
from ..evaluation.datasets.coco import read_coco
from ..evaluation.datasets.mm_safetybench import BENIGN, read_mm_safetybench
from ..evaluation.datasets.pope import read_pope
from ..evaluation.datasets.vqav2 import read_vqav2
from ..states.prompts import QUESTION
from ..states.samples import Sample
from .source import Source

__all__ = ["read_benchmark"]


def read_benchmark(format: str, folder: Path, images: Path | None = None, question: str | None = None) -> Source:
    """A data set's samples. question: what to ask where the data set has no questions (coco).

    Raises:
        DataError: files are missing or of another form. SettingError: a question for a data set that has its own.
    """
    if question is not None and format != "coco":
        raise SettingError(f"--question is for sources without questions, and {format} has its own; use --prompt")
    readers: dict[str, Callable[[Path, Path | None], Benchmark]] = {
        "vqav2": read_vqav2,
        "coco": read_coco,
        "pope": read_pope,
        "mm-safetybench": read_mm_safetybench,
    }
    benchmark: Benchmark = readers[format](folder, images)
    samples, prompt = benchmark.samples, benchmark.prompt
    if QUESTION not in prompt:  # then the samples have no question of their own
        samples = tuple(replace(one, question=question or prompt) for one in samples)
        prompt = prompt if question is None else QUESTION
    start = images or folder
    groups = {one.id: _mm_group(one) if format == "mm-safetybench" else _picture(one, start) for one in samples}
    return Source(format, benchmark.digest, samples, groups, prompt)


def _picture(sample: Sample, start: Path) -> str:
    return sample.question if sample.image is None else os.path.relpath(sample.image, start)


def _mm_group(sample: Sample) -> str:
    """The three pictures of one unsafe question belong together."""
    if sample.type == BENIGN:
        return sample.id
    scenario, _, number = sample.id.split("/", 2)
    return f"{scenario}/{number}"
