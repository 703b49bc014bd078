"""How each request of this process ended, told once per request: for counters, and for logs that a line has to close.

A request is followed from where vLLM's front end takes it to where it ends there: with its last token, or because
somebody aborted it. What is known of it hangs on the object that vLLM keeps of it for just that long. So no request is
missed, none is told twice, and nothing is looked up by a request id, which is the client's and may repeat.

vLLM's stat loggers were no way to this. They are not told of aborts, know a request by the client's id only, and an
entry point in their group would switch statistics on in every engine of the environment, also in those that did not ask
for trimtab.

Not told: a request that was refused, or that was never added because the queue is full; requests of an engine that
died; and a resumable one, which vLLM ends elsewhere.

Leans on vllm/v1/engine/output_processor.py: OutputProcessor.add_request, abort_requests and _update_stats_from_finished
(called as the last output of a sequence is handed on, whether or not statistics are kept), and RequestState; and on
vllm/v1/metrics/stats.py: RequestStateStats (0.29 to 0.32).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..compat.wrapping import wrap
from ..requests.decided import Chosen

__all__ = ["About", "Finish", "follow", "given", "install", "listeners"]

logger = logging.getLogger("vllm.trimtab")

ABORTED = "abort"
_MARK = "trimtab_followed"
"""The attribute of vLLM's objects that holds what is known of a request that has not ended."""
_GIVEN = "trimtab_given"


@dataclass(frozen=True, slots=True)
class About:
    """What an admitted request was given.

    chosen: its profiles with their strengths. experiment, variation, exposure_id: where it takes part in an experiment,
    else empty.
    """

    chosen: Chosen
    experiment: str = ""
    variation: str = ""
    exposure_id: str = ""


@dataclass(frozen=True, slots=True)
class Finish:
    """How a request ended. Times are in seconds, and None where they are not known.

    reason: "stop", "length", "abort", "error" or another of vLLM's words. prompt_tokens, cached_tokens: of its prompt,
    and how many of them the prefix cache gave. generated_tokens: of all its sequences. queue_s: until it was first
    scheduled. first_token_s: until its first token had come. per_token_s: between its tokens, on average. e2e_s: until
    it ended. Without vLLM's statistics (`--disable-log-stats`) no times are known.
    """

    reason: str
    prompt_tokens: int
    generated_tokens: int
    cached_tokens: int
    queue_s: float | None = None
    first_token_s: float | None = None
    per_token_s: float | None = None
    e2e_s: float | None = None


listeners: list[Callable[[About, Finish], None]] = []
"""Told once per request, in the process that took it. Without any, no request is followed."""


@dataclass(slots=True)
class _Followed:
    """One request. running: how many of its sequences have not ended: more than one where a request has n > 1."""

    about: About
    running: int = 0
    ends: list[Finish] = field(default_factory=list)


def install() -> None:
    """Follow requests in this process. Safe to call again."""
    from vllm.v1.engine.output_processor import OutputProcessor

    wrap(OutputProcessor, "add_request", _add)
    wrap(OutputProcessor, "abort_requests", _abort)
    wrap(OutputProcessor, "_update_stats_from_finished", _finish)


def follow(params: Any, about: About) -> None:
    """Tell the listeners when the admitted request that has these `SamplingParams` ends."""
    if listeners:
        setattr(params, _MARK, _Followed(about))  # an attribute that is no field is not sent to the engine


def given(state: Any) -> About | None:
    """What the request of one of vLLM's `RequestState` was given, also once it has ended; None for one not followed."""
    found: About | None = getattr(state, _GIVEN, None)
    return found


def _add(
    add: Callable[..., None], self: Any, request: Any, prompt: Any, parent_req: Any = None, *args: Any, **kwargs: Any
) -> None:
    add(self, request, prompt, parent_req, *args, **kwargs)
    followed: _Followed | None = getattr((parent_req or request).sampling_params, _MARK, None)
    state = self.request_states.get(request.request_id)
    if followed is not None and state is not None and not hasattr(state, _MARK):
        setattr(state, _MARK, followed)
        setattr(state, _GIVEN, followed.about)
        followed.running += 1


def _finish(finish: Callable[..., None], self: Any, state: Any, reason: Any, iteration: Any) -> None:
    finish(self, state, reason, iteration)
    _end(state, str(reason), time.time() if iteration is None else iteration.iteration_timestamp)


def _abort(abort: Callable[..., list[str]], self: Any, request_ids: Any, *args: Any, **kwargs: Any) -> list[str]:
    before = dict(self.request_states)
    aborted = abort(self, request_ids, *args, **kwargs)
    for name in aborted:  # internal ids; those that had ended before are not among them
        if name in before:
            _end(before[name], ABORTED, time.time())
    return aborted


def _end(state: Any, reason: str, now: float) -> None:
    followed: _Followed | None = state.__dict__.pop(_MARK, None)
    if followed is None:
        return
    followed.running -= 1
    followed.ends.append(_seen(state, reason, now))
    if followed.running:
        return
    finish = _whole(followed.ends)
    for tell in listeners:
        try:
            tell(followed.about, finish)
        except Exception:
            # The caller hands on the outputs of all requests of this process: an error would end every one of them.
            logger.exception("trimtab: the end of a request could not be counted or logged")


def _seen(state: Any, reason: str, now: float) -> Finish:
    """How one sequence ended. state: a `RequestState` of vLLM's."""
    stats = state.stats
    if stats is None:
        return Finish(reason, state.prompt_len, state.detokenizer.num_output_tokens(), state.num_cached_tokens)
    tokens, began = stats.num_generation_tokens, stats.first_token_ts > 0
    return Finish(
        reason,
        state.prompt_len,
        tokens,
        state.num_cached_tokens,
        queue_s=stats.scheduled_ts - stats.queued_ts if stats.scheduled_ts else None,
        first_token_s=stats.first_token_latency if began else None,
        per_token_s=(stats.last_token_ts - stats.first_token_ts) / (tokens - 1) if tokens > 1 else None,
        e2e_s=now - stats.arrival_time,
    )


def _whole(ends: Sequence[Finish]) -> Finish:
    """How a request ended whose sequences ended so: as the last one, with all tokens, after the longest time.

    What came first is the request's: the time to its first token, and what was cached before it came.
    """
    if len(ends) == 1:
        return ends[0]
    paces = _known(end.per_token_s for end in ends)
    return Finish(
        ends[-1].reason,
        ends[-1].prompt_tokens,
        sum(end.generated_tokens for end in ends),
        min(end.cached_tokens for end in ends),
        queue_s=min(_known(end.queue_s for end in ends), default=None),
        first_token_s=min(_known(end.first_token_s for end in ends), default=None),
        per_token_s=sum(paces) / len(paces) if paces else None,
        e2e_s=max(_known(end.e2e_s for end in ends), default=None),
    )


def _known(values: Any) -> list[float]:
    return [value for value in values if value is not None]
