"""Captured states on disk, as a folder of states (`trimtab.vectors.states`) with one shard, which offline reads.

Positions are counted as offline counts them: 0 is the last of the prompt, p > 0 the answer's token p - 1; the prompt's
others count back from its end as Python does, from -2 on. A row's token is the one that it predicts.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.vectors import ModelIdentity
from trimtab.vectors.errors import FormatError
from trimtab.vectors.states import StatesManifest, StatesRequest, StatesShard, write_shard, write_states_manifest

from ..compat.versions import installed_vllm
from ..config import model_folder
from .calls import Captured

__all__ = ["write_states"]

_SHARD = "rows-00000"
_WORD = re.compile(r"\w+(?:['’-]\w+)*")


def write_states(
    llm: Any,
    captured: Sequence[Captured],
    folder: Path,
    *,
    ids: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> None:
    """Write what was captured into a new folder.

    Args:
        llm: the engine that it came from; its model is named in the manifest.
        ids: of the requests; their numbers if left out.
        labels: of the requests, given to all of their rows. Left out, the row of the last prompt position is labelled
            by the first word of the answer in lower case, as offline's rule last-prompt does, and the others by "".

    Raises:
        FormatError: the folder exists, or ids or labels are too many or too few.
    """
    if folder.exists():
        raise FormatError(f"{folder}: exists already; choose another folder")
    if not captured or any(len(named) != len(captured) for named in (ids, labels) if named is not None):
        raise FormatError(f"{folder}: needs at least one request, and an id and a label for each or for none")
    config = llm.llm_engine.vllm_config
    names = [str(number) for number in range(len(captured))] if ids is None else list(ids)
    words: dict[str, int] = {}
    columns: dict[str, list[int]] = {"sample": [], "position": [], "token": [], "label": []}
    for number, one in enumerate(captured):
        for position, token, label in _described(one, None if labels is None else labels[number]):
            found = (number, position, token, words.setdefault(label, len(words)))
            for column, value in zip(columns.values(), found, strict=True):
                column.append(value)
    tensors: dict[str, np.ndarray[Any, Any]] = {name: np.array(column, np.int64) for name, column in columns.items()}
    for layer in captured[0].rows:
        tensors[f"layers.{layer}"] = np.concatenate([one.rows[layer] for one in captured])
    answers = (json.dumps({"id": name, "answer": one.text}) for name, one in zip(names, captured, strict=True))
    request = StatesRequest(
        model=ModelIdentity.of(
            model_folder(config.model_config.model, config.model_config.revision, config.load_config.download_dir)
        ),
        data=_digest(json.dumps([[name, one.prompt] for name, one in zip(names, captured, strict=True)])),
        samples=len(captured),
        rule="captured",
        layers=tuple(sorted(captured[0].rows)),
        dtype=str(config.model_config.dtype).removeprefix("torch."),
        batch_size=config.scheduler_config.max_num_seqs,
        shard_size=len(captured),
        max_new_tokens=max(len(one.tokens) for one in captured),
    )
    folder.mkdir(parents=True)
    try:
        shard = StatesShard(
            name=_SHARD,
            start=0,
            stop=len(captured),
            rows=len(columns["sample"]),
            sha256=write_shard(folder, _SHARD, tensors, "".join(f"{answer}\n" for answer in answers).encode()),
        )
        versions = {**{name: version(name) for name in ("torch", "numpy")}, "vllm": str(installed_vllm())}
        manifest = StatesManifest(request=request, versions=versions, labels=tuple(words), shards=(shard,))
        write_states_manifest(folder, manifest)  # last: it says what is whole
    except BaseException:  # a full disk, a label that cannot be written: half a folder is of use to nobody
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _described(one: Captured, label: str | None) -> Iterator[tuple[int, int, str]]:
    """Position, predicted token and label of each row."""
    length, read = len(one.prompt), (*one.prompt, *one.tokens)
    word = _WORD.search(one.text)
    for position in one.positions.tolist():
        is_last = position == length - 1
        own = word.group().lower() if is_last and word is not None else ""
        yield (
            position - length + 1 if position >= length - 1 else position - length,
            read[position + 1],
            own if label is None else label,
        )


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
