"""A request that has lost what it was to be given ends with an error, and so does who may have read what it wrote.

A worker reads the marks of a step (`steps.lost`) where the step's tokens are sampled, and lets its output carry the
names of the requests. The scheduler ends them when it reads that output. What they wrote in the step lies in blocks
whose keys say that they are steered. So all blocks leave the prefix cache, and whoever holds one of these ends too. It
takes damaged memory or a bug to get here: what is simple and sure comes before what is spared.

vLLM has no official way to end one request from a worker; its own errors (of a grammar, of a KV transfer) end in
`Scheduler.finish_requests` as well. With pipeline parallelism only the last stage has an output that can name a
request: a loss on another one ends the engine.

Leans on vllm/v1/worker/gpu_model_runner.py and vllm/v1/worker/gpu/model_runner.py: GPUModelRunner.sample_tokens, which
follows the layers of each step, and on vllm/v1/core/sched/scheduler.py: Scheduler.update_from_output, finish_requests
(0.29 to 0.32).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ..compat.wrapping import wrap
from ..model.arming import tables_of
from ..requests.kv import first_keyed
from ..requests.lost import LOST
from ..steps.lost import StepMarks

__all__ = ["end_lost", "watch"]

logger = logging.getLogger("vllm.trimtab")

_NAMES = "trimtab_lost"
"""The attribute of a `ModelRunnerOutput` that holds the names."""


def watch(runner_class: type) -> None:
    """Let the model runners of a class look for what is lost. Safe to call again."""
    wrap(runner_class, "sample_tokens", _sample)


def _sample(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    tables = tables_of(self.get_model())
    marks = None if tables is None else tables.tokens.marks()
    output = original(self, *args, **kwargs)
    if marks is None:
        return output
    if hasattr(output, "get_output"):  # its tokens, and our marks, are still on their way from the device
        return _awaiting()(output, marks)
    return _noted(output, marks)


@functools.cache
def _awaiting() -> type:
    from vllm.v1.outputs import AsyncModelRunnerOutput

    class Awaiting(AsyncModelRunnerOutput):
        """An output that is waited for, and the marks that come with it."""

        def __init__(self, output: Any, marks: StepMarks) -> None:
            self._output, self._marks = output, marks

        def get_output(self) -> Any:
            return _noted(self._output.get_output(), self._marks)

    return Awaiting


def _noted(output: Any, marks: StepMarks) -> Any:
    last_stage = bool(getattr(output, "req_ids", None))
    if not last_stage and torch.accelerator.is_available():
        torch.accelerator.synchronize()  # nothing else has waited for the marks
    if names := marks.names():
        for name in names:
            logger.error("trimtab: request %s: %s", name, LOST)
        if not last_stage:
            raise RuntimeError(f"trimtab: on a pipeline stage that cannot end a request alone, {LOST}")
        setattr(output, _NAMES, names)
    return output


def end_lost() -> None:
    """Let the scheduler end the requests that an output names. Safe to call again."""
    from vllm.v1.core.sched.scheduler import Scheduler

    wrap(Scheduler, "update_from_output", _update)


def _update(original: Callable[..., Any], self: Any, scheduler_output: Any, output: Any) -> Any:
    # A request that is ended may be in a step that runs already, whose output names it once more. One that lives is
    # another of the same name: vLLM can be told to add nothing to a client's request id.
    ended_before: set[str] = self.__dict__.setdefault("trimtab_ended", set())
    names = {name for name in getattr(output, _NAMES, ()) if name not in ended_before or _lives(self, name)}
    if not names:
        return original(self, scheduler_output, output)
    written = _written(self, names, scheduler_output)
    ended = [
        request
        for name, request in self.requests.items()
        if name in names or (_is_keyed(request) and (written is None or not written.isdisjoint(_blocks(self, name))))
    ]
    results = original(self, scheduler_output, output)
    self.kv_cache_manager.evict_blocks(set(range(self.kv_cache_manager.block_pool.num_gpu_blocks)))
    for sharer in {request.request_id for request in ended} - names:
        logger.error("trimtab: request %s ends too: it holds blocks that may not be steered", sharer)
    ended_before.update(names, (request.request_id for request in ended))
    return _with_errors(self, results, ended)


def _written(scheduler: Any, names: Iterable[str], scheduler_output: Any) -> set[int] | None:
    """The blocks that requests may have written in a step under keys of steering; None if nobody knows them any more.

    A request that was aborted or sent back while the step ran has no blocks: they are free, and still cached.
    """
    found: set[int] = set()
    for name in names:
        request = scheduler.requests.get(name)
        if request is not None and not _is_keyed(request):
            continue
        blocks = [] if request is None else _blocks(scheduler, name, _first_position(scheduler_output, name))
        if not blocks:
            return None
        found.update(blocks)
    found.discard(scheduler.kv_cache_manager.block_pool.null_block.block_id)  # many hold it, and nobody reads it
    return found


def _blocks(scheduler: Any, name: str, start: int = 0) -> list[int]:
    """The blocks that a request holds, from one before that of position `start`: drafts may have moved it back."""
    groups = scheduler.kv_cache_config.kv_cache_groups
    of_groups = zip(scheduler.kv_cache_manager.get_block_ids(name), groups, strict=True)
    return [
        block for blocks, group in of_groups for block in blocks[max(0, start // group.kv_cache_spec.block_size - 1) :]
    ]


def _first_position(scheduler_output: Any, name: str) -> int:
    """Where the tokens of a request begin in a step."""
    for new in scheduler_output.scheduled_new_reqs:
        if new.req_id == name:
            return int(new.num_computed_tokens)
    cached = scheduler_output.scheduled_cached_reqs
    return int(cached.num_computed_tokens[cached.req_ids.index(name)])


def _lives(scheduler: Any, name: str) -> bool:
    request = scheduler.requests.get(name)
    return request is not None and not request.is_finished()


def _is_keyed(request: Any) -> bool:
    return first_keyed(request.sampling_params) is not None


def _with_errors(scheduler: Any, results: Any, ended: Iterable[Any]) -> Any:
    """The outputs of a step by client, in which these requests end with an error, whatever they ended with."""
    from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
    from vllm.v1.request import RequestStatus

    for request in ended:
        scheduler.finish_requests(request.request_id, RequestStatus.FINISHED_ERROR)
        of_client = results.setdefault(request.client_index, EngineCoreOutputs())
        mine = [found for found in of_client.outputs if found.request_id == request.request_id]
        if not mine:
            mine = [EngineCoreOutput(request_id=request.request_id, new_token_ids=[])]
            of_client.outputs += mine
        for found in mine:
            found.new_token_ids, found.new_logprobs = [], None
            found.finish_reason, found.stop_reason = FinishReason.ERROR, LOST
    return results
