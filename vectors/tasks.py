"""What one process asks an engine to capture, and what the engine answers: files in a folder that both can reach.

    job.json              the model, its layers and how it is run; written before the engine's process is started
    tasks-00000.jsonl     one line per prompt: its number, its token ids, the path of its picture
    rows-00000.jsonl      one line per prompt: what was generated, or why nothing was
    rows-00000.safetensors   layers.<l> float32 [n, D]; sample int64 [n], the number of the prompt of each row

The engine's process is `python -m trimtab.plugin.capture FOLDER`. It reads the number of a tasks file from each line of
its standard input, writes the two files of rows, the .jsonl last, and ends where its input ends. A file that was read
is deleted. The rows of a prompt begin with the last position of the prompt and are in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictStr
from safetensors.numpy import load_file, save_file

from .decode import Natural

__all__ = [
    "MODULE",
    "PROGRAM",
    "Answered",
    "Job",
    "Task",
    "answers_in",
    "read_tasks",
    "write_answers",
    "write_tasks",
]

MODULE = "trimtab.plugin.capture"
PROGRAM = "trimtab-capture"
"""What each sentence of that process begins with."""
_JOB = "job.json"

Float32 = npt.NDArray[np.float32]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Job(_Frozen):
    """What is the same for all prompts.

    model: its folder. layers: decoder blocks, 0-based. positions: rows of the last position of the prompt alone, or of
    all positions that predict a token of the answer. max_tokens: where an answer is cut. at_once: prompts in a file of
    tasks. arguments: further ones of `vllm.LLM`.
    """

    model: StrictStr
    layers: tuple[Natural, ...]
    dtype: StrictStr
    positions: Literal["last_prompt", "answer"]
    max_tokens: Natural
    at_once: Natural
    arguments: dict[StrictStr, JsonValue] = Field(default_factory=dict)

    def write(self, folder: Path) -> None:
        (folder / _JOB).write_text(self.model_dump_json(), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> Job:
        return cls.model_validate_json((folder / _JOB).read_bytes())


class Task(_Frozen):
    """A prompt. tokens: its ids, a picture being one mark as the chat template writes it. image: an absolute path."""

    number: Natural
    tokens: tuple[Natural, ...]
    image: StrictStr | None = None


class Answered(_Frozen):
    """What became of a prompt: generated ids, or the reason why there are none.

    ended: the last of the ids is an end token; else the answer was cut.
    """

    number: Natural
    tokens: tuple[Natural, ...] = ()
    ended: bool = False
    reason: StrictStr | None = None


def write_tasks(folder: Path, number: int, tasks: Iterable[Task]) -> None:
    """Write a file of tasks."""
    _write_lines(folder / f"tasks-{number:05d}.jsonl", tasks)


def read_tasks(folder: Path, number: int) -> list[Task]:
    """The tasks of a file, which is deleted."""
    path = folder / f"tasks-{number:05d}.jsonl"
    tasks = [Task.model_validate_json(line) for line in path.read_bytes().splitlines()]
    path.unlink()
    return tasks


def write_answers(
    folder: Path,
    number: int,
    answers: Iterable[tuple[Answered, Mapping[int, Float32]]],
    size: int,
    layers: Iterable[int],
) -> None:
    """Write what became of a file of tasks: of each prompt its rows by layer, float32 [n, size] (none for a reason)."""
    said, rows = zip(*answers, strict=True)
    counts = [len(next(iter(one.values()), ())) for one in rows]
    tensors: dict[str, npt.NDArray[Any]] = {
        f"layers.{layer}": np.concatenate([np.zeros((0, size), np.float32), *(one[layer] for one in rows if one)])
        for layer in layers
    }
    tensors["sample"] = np.repeat(np.array([one.number for one in said], np.int64), counts)
    save_file(tensors, folder / f"rows-{number:05d}.safetensors")
    _write_lines(folder / f"rows-{number:05d}.jsonl", said)


def answers_in(folder: Path, number: int) -> Iterator[tuple[Answered, dict[int, Float32]]] | None:
    """What became of a file of tasks, as `write_answers` was given it; None while it is not there. It is deleted."""
    told, path = (folder / f"rows-{number:05d}.{end}" for end in ("jsonl", "safetensors"))
    if not told.exists():
        return None
    tensors = load_file(path)
    said = [Answered.model_validate_json(line) for line in told.read_bytes().splitlines()]
    told.unlink()
    path.unlink()
    return _by_prompt(said, tensors)


def _by_prompt(
    said: Iterable[Answered], tensors: dict[str, npt.NDArray[Any]]
) -> Iterator[tuple[Answered, dict[int, Float32]]]:
    samples = tensors.pop("sample")
    stop = 0
    for one in said:
        start, stop = stop, stop + int((samples == one.number).sum())
        yield one, {int(name.removeprefix("layers.")): values[start:stop] for name, values in tensors.items()}


def _write_lines(path: Path, lines: Iterable[BaseModel]) -> None:
    """In one step: whoever sees the file sees all of it. Nothing is synced, for it lives no longer than the process."""
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(f"{line.model_dump_json()}\n" for line in lines), "utf-8")
    fresh.replace(path)
