"""`trimtab represent --engine vllm` as a side of `bench.hooks`: all of its work but the start of its engine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from bench.ours import MODEL, Case, Run
from examples.tinyworld.data import write_split
from trimtab.offline.images import open_image
from trimtab.offline.models.reader import Question
from trimtab.offline.states import LastPrompt, load_states, represent
from trimtab.offline.states.engine import Engine
from trimtab.offline.states.samples import read_samples
from trimtab.offline.states.sources import Asked, Read
from trimtab.vectors.states import StatesRequest

__all__ = ["Represented"]

_SCENES = 128
"""With six questions each: three shards of 256."""
_ARGUMENTS = {"max_model_len": 512, "block_size": 32, "kv_cache_memory_bytes": 512 << 20}


class Represented:
    """The states of the last prompt position of a samples file, at all layers, as a folder of states.

    questions: of the file, in order.
    """

    def __init__(self, folder: Path, layers: int) -> None:
        self._folder, self._layers = folder, range(layers)
        write_split(folder / "dev", "dev", _SCENES, seed=1)
        self._data = folder / "dev" / "vqa.jsonl"
        asked = [(one.question, one.image) for one in read_samples(self._data).samples]
        self.questions = [Question(text, open_image(image)) for text, image in asked if image is not None]
        self._runs = itertools.count()

    def run(self, case: Case, questions: Sequence[Question]) -> Run:
        """One run of the command. What is counted and timed are all shards but the first, see `_Timed`."""
        source, out = _Timed(MODEL, "float32", arguments=_ARGUMENTS), self._folder / f"states-{next(self._runs)}"
        # A label that is no word of the answer, and no background: nothing is generated.
        manifest = represent(source, self._data, LastPrompt(), self._layers, out, labels="type", background=0)
        rows = {layer: load_states(out, layer).values for layer in self._layers}
        count = sum(shard.rows for shard in manifest.shards[1:]) * len(rows)
        return Run(count, source.last - source.first, [[0]] * len(questions), rows)


class _Timed(Engine):
    """first: when the engine had done the first shard, and so began the next. last: when the last shard was written."""

    first = last = 0.0

    def read(
        self, shards: Iterable[Sequence[Asked]], request: StatesRequest, enough: Callable[[str], bool]
    ) -> Generator[Iterator[Read]]:
        with closing(super().read(shards, request, enough)) as read:
            for readings in read:
                yield self._noted(readings)
                self.last = time.perf_counter()

    def _noted(self, readings: Iterator[Read]) -> Iterator[Read]:
        for reading in readings:
            self.first = self.first or time.perf_counter()
            yield reading
