"""A request that has lost what it was to be given ends with an error, and no other request does.

A worker reads the marks of a step (`steps.lost`) where the step's tokens are sampled, and lets its output carry the
names of the requests. The scheduler ends them when it reads that output. It also takes their blocks out of the prefix
cache, which would be found under the keys of steering that they do not hold, and ends who shares such a block already.

vLLM has no official way to end one request from a worker; its own errors (of a grammar, of a KV transfer) end in
`Scheduler.finish_requests` as well. With pipeline parallelism only the last stage has an output: what another one loses
is logged, and not ended.

Leans on vllm/v1/worker/gpu_model_runner.py and vllm/v1/worker/gpu/model_runner.py: GPUModelRunner.sample_tokens, which
follows the layers of each step, and on vllm/v1/core/sched/scheduler.py: Scheduler.update_from_output, finish_requests
(0.29 to 0.32).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

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
        output.get_output = partial(_awaited, output.get_output, marks)
        return output
    return _noted(output, marks)


def _awaited(get_output: Callable[[], Any], marks: StepMarks) -> Any:
    return _noted(get_output(), marks)


def _noted(output: Any, marks: StepMarks) -> Any:
    if names := marks.names():
        for name in names:
            logger.error("trimtab: request %s: %s", name, LOST)
        if getattr(output, "req_ids", None):  # the last stage of a pipeline; others share one empty output
            setattr(output, _NAMES, names)
    return output


def end_lost() -> None:
    """Let the scheduler end the requests that an output names. Safe to call again."""
    from vllm.v1.core.sched.scheduler import Scheduler

    wrap(Scheduler, "update_from_output", _update)


def _update(original: Callable[..., Any], self: Any, scheduler_output: Any, output: Any) -> Any:
    names = getattr(output, _NAMES, None)
    if names is None:
        return original(self, scheduler_output, output)
    blocks = _blocks(self, names)
    sharers = [name for name in self.requests if name not in names and blocks & _blocks(self, [name])]
    ended = [
        request
        for name in (*names, *sharers)
        if (request := self.requests.get(name)) is not None and not request.is_finished()
    ]
    results = original(self, scheduler_output, output)
    self.kv_cache_manager.evict_blocks(blocks)
    return _with_errors(self, results, ended)


def _blocks(scheduler: Any, names: Iterable[str]) -> set[int]:
    """The blocks of requests whose keys say that they are steered."""
    found: set[int] = set()
    for name in names:
        request = scheduler.requests.get(name)
        start = None if request is None else first_keyed(request.sampling_params)
        if start is not None:
            groups = scheduler.kv_cache_config.kv_cache_groups
            for blocks, group in zip(scheduler.kv_cache_manager.get_block_ids(name), groups, strict=True):
                found.update(blocks[start // group.kv_cache_spec.block_size :])
    return found


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
