"""Where answers and their states come from: a model in this process, or (see `engine`) one that vLLM serves."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from trimtab.vectors.states import StatesRequest

from ..images import UnreadableImage, open_image
from ..models.reader import Reader, Reading, UnreadError
from ..models.writing import Question, Writing

__all__ = ["Asked", "Read", "Source", "Transformers"]

Read = tuple[int, Reading | str]
"""A sample's number and what was read of it, or why nothing was: a clause such as "the picture is missing"."""


@dataclass(frozen=True)
class Asked:
    """A question for a model. number: of the sample. text: without the chat template."""

    number: int
    text: str
    image: Path | None


class Source(Protocol):
    """Answers questions, shard by shard."""

    @property
    def engine(self) -> Literal["vllm"] | None:
        """What runs the model, as the manifest says it."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Further arguments of that engine that may change states."""

    @property
    def packages(self) -> Sequence[str]:
        """Packages whose versions belong into the manifest."""

    @property
    def writing(self) -> Writing:
        """The model's text side."""

    @property
    def dtype(self) -> str:
        """What the model computes in: float32, bfloat16 or float16."""

    def read(
        self, shards: Iterable[Sequence[Asked]], request: StatesRequest, enough: Callable[[str], bool]
    ) -> Generator[Iterator[Read]]:
        """For each shard, in order, one reading for every question in it, in any order.

        enough: told an answer's text so far, says whether that is enough; the answer then ends there.
        """


class Transformers:
    """A model of transformers, in this process."""

    engine: None = None
    arguments: Mapping[str, Any] = {}  # nobody writes to it
    packages = ()

    def __init__(self, reader: Reader) -> None:
        self.writing = self._reader = reader
        self.dtype = reader.dtype

    def read(
        self, shards: Iterable[Sequence[Asked]], request: StatesRequest, enough: Callable[[str], bool]
    ) -> Generator[Iterator[Read]]:
        """In batches of `request.batch_size` like questions. A batch that does not fit in memory is read in halves."""
        for shard in shards:
            yield self._shard(shard, request, enough)

    def _shard(self, shard: Sequence[Asked], request: StatesRequest, enough: Callable[[str], bool]) -> Iterator[Read]:
        for batch in _batches(shard, request.batch_size):
            questions: list[tuple[int, Question]] = []
            for one in batch:
                try:
                    image = None if one.image is None else open_image(one.image)
                except UnreadableImage as error:
                    yield one.number, str(error)
                    continue
                questions.append((one.number, Question(one.text, image)))
            yield from self._readings(questions, request, enough)

    def _readings(
        self, asked: Sequence[tuple[int, Question]], request: StatesRequest, enough: Callable[[str], bool]
    ) -> Iterator[Read]:
        if not asked:
            return
        try:
            questions = [question for _, question in asked]
            readings = self._reader.read(questions, request.layers, request.max_new_tokens, enough)
        except UnreadError as error:
            reason = str(error)
        else:
            yield from zip((number for number, _ in asked), readings, strict=True)
            return
        # Not inside `except`: as long as the error lives, so do the tensors of the attempt that did not fit.
        if len(asked) == 1:
            yield asked[0][0], reason
            return
        half = (len(asked) + 1) // 2
        yield from self._readings(asked[:half], request, enough)
        yield from self._readings(asked[half:], request, enough)


def _batches(asked: Sequence[Asked], size: int) -> Iterator[Sequence[Asked]]:
    """Batches of like questions: by picture or none, then by length, so that little padding is needed."""
    order = sorted(asked, key=lambda one: (one.image is None, len(one.text), one.number))
    for pictured in (True, False):
        group = [one for one in order if (one.image is not None) == pictured]
        for at in range(0, len(group), size):
            yield group[at : at + size]
