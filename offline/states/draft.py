"""A shard in the making: the states of its samples, in whatever order they are read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.vectors.states import (
    BACKGROUND,
    SAMPLE_LABEL,
    WEIGHT,
    SkippedSample,
    StatesManifest,
    StatesShard,
    write_shard,
)

from ..models.reader import Reading
from .cap import Cap
from .labels import ANSWER, label_of
from .rules import Kept
from .samples import Sample
from .store import Float32

__all__ = ["Draft"]


@dataclass(frozen=True)
class _State:
    """A state to write. position: -1 for a mean. background: the column of `trimtab.vectors.states`."""

    position: int
    token: int
    label: str
    background: int
    stream: dict[int, Float32]


class Draft:
    """What is known of the samples [start, start + n) of the data. samples: them, by number."""

    def __init__(self, start: int, samples: Sequence[Sample]) -> None:
        self.start = start
        self.samples = dict(enumerate(samples, start))
        self.skipped: dict[int, SkippedSample] = {}
        self._states: dict[int, list[_State]] = {}
        self._answers: dict[int, str] = {}

    def skip(self, number: int, reason: str) -> None:
        """A sample that gives no state of the rule."""
        self.skipped[number] = SkippedSample(id=self.samples[number].id, reason=reason)

    def add(self, number: int, reading: Reading, kept: Iterable[Kept], background: int = 0) -> None:
        """Keep states of sample `number`, and its answer. background: how many positions these stand for."""
        self._answers[number] = reading.answer.text
        states = self._states.setdefault(number, [])
        for one in kept:
            at = list(one.positions)
            stream = {
                layer: rows[at].mean(axis=0, dtype=np.float64).astype(np.float32)
                for layer, rows in reading.stream.items()
            }
            states.append(_State(at[0] if len(at) == 1 else -1, one.token, one.label, background, stream))

    def finish(self, out: Path, manifest: StatesManifest, cap: Cap | None = None) -> StatesManifest:
        """Write the shard, in the order of its samples; the manifest that names it. cap: of the states per label."""
        request = manifest.request
        rows: list[tuple[int, _State]] = []
        left_out = Counter[str]()
        for number in sorted(self._states):
            for one in self._states[number]:
                if one.background or cap is None or cap.admits(one.label):
                    rows.append((number, one))
                else:
                    left_out[one.label] += 1
        if cap is not None:
            kept = {number for number, one in rows if not one.background}
            for number in self._states.keys() - kept - self.skipped.keys():
                self.skip(number, f"its labels have {request.most_per_label:,} states each already")
        numbers = {label: number for number, label in enumerate(manifest.labels)}
        labels = [numbers.setdefault(one.label, len(numbers)) for _, one in rows]
        columns = {
            "sample": [number for number, _ in rows],
            "position": [one.position for _, one in rows],
            "token": [one.token for _, one in rows],
            "label": labels,
        }
        if request.background is not None:
            columns[BACKGROUND] = [one.background for _, one in rows]
        if request.labels is not None:
            own = (label_of(self.samples[number], request.labels or ANSWER) or "" for number, _ in rows)
            columns[SAMPLE_LABEL] = [numbers.setdefault(label, len(numbers)) for label in own]
        tensors: dict[str, npt.NDArray[Any]] = {
            f"layers.{layer}": np.array([one.stream[layer] for _, one in rows], np.float32).reshape(
                len(rows), request.model.hidden_size
            )
            for layer in request.layers
        }
        tensors |= {name: np.array(column, np.int64) for name, column in columns.items()}
        if request.draw is not None:
            tensors[WEIGHT] = np.array([self.samples[number].weight for number, _ in rows], np.float64)
        lines = (
            json.dumps({"id": sample.id, "answer": self._answers.get(number)}, ensure_ascii=False) + "\n"
            for number, sample in self.samples.items()
        )
        name = f"rows-{len(manifest.shards):05d}"
        background = sum(one.background > 0 for _, one in rows)
        shard = StatesShard(
            name=name,
            start=self.start,
            stop=self.start + len(self.samples),
            rows=len(rows) - background,
            background=None if request.background is None else background,
            left_out=dict(left_out) or None,
            sha256=write_shard(out, name, tensors, "".join(lines).encode()),
            skipped=tuple(self.skipped[sample] for sample in sorted(self.skipped)),
        )
        return manifest.model_copy(update={"labels": tuple(numbers), "shards": (*manifest.shards, shard)})
