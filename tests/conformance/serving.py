"""The engine's side: serves batches step by step, with the room that each is given. See `tests.engine.host.Host`.

Leans on vllm/v1/core/sched/scheduler.py: the limits of a step are read anew in every step (0.29 to 0.32).
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

from examples.tinyworld.draw import draw
from tests.conformance.mutations import Mutation
from tests.conformance.pool import Request
from tests.engine.asking import scene_of

_MOST_STEPS = 20_000


class Serving:
    """Public methods are the commands."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._engine = llm.llm_engine
        self._core = self._engine.engine_core.engine_core
        self._scheduler = self._core.scheduler
        self._pool: dict[int, Request] = {}
        self._mutation: Mutation | None = None
        self._preempted = 0
        preempt = self._scheduler._preempt_request

        def counted(*args: Any, **kwargs: Any) -> None:
            self._preempted += 1
            preempt(*args, **kwargs)

        self._scheduler._preempt_request = counted

    def know(self, requests: list[dict[str, Any]]) -> None:
        """Requests that are from now on spoken of by their numbers."""
        self._pool |= {request.number: request for request in map(Request.of_json, requests)}

    def alone(self, request: int) -> dict[str, Any]:
        """A request that has the engine to itself and no cached prompt: its prompt, tokens, and the lead of each token.

        The lead is the difference between the logits of the best token and the second.
        """
        self._empty()
        self._enqueue(self._pool[request], logprobs=2)
        (output,) = [output for outputs in self._steps() for output in outputs if output.finished]
        best = [sorted((entry.logprob for entry in step.values()), reverse=True) for step in output.outputs[0].logprobs]
        return {
            "prompt": list(output.prompt_token_ids),
            "tokens": list(output.outputs[0].token_ids),
            "leads": [step[0] - step[1] for step in best],
        }

    def serve(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What each entry was told, as far as it got, and what happened on the way."""
        entries = batch["entries"]
        names: list[str] = [""] * len(entries)
        told: dict[str, list[int]] = {}
        cached: dict[str, int] = {}
        aborted: list[int] = []
        arriving = Counter(entry["late"] for entry in entries)
        self._preempted, before = 0, len(self._mutation.changed) if self._mutation else 0
        held = self._make_room(**batch)
        steps = 0
        while arriving or self._engine.has_unfinished_requests():
            for place, entry in enumerate(entries):
                if entry["late"] == steps:
                    names[place] = self._enqueue(self._pool[entry["request"]], priority=entry["priority"])
                if entry["abort"] == steps and names[place] not in told:
                    told[names[place]] = self._so_far(names[place])
                    self._engine.abort_request([names[place]])
                    aborted.append(place)
            arriving.pop(steps, None)
            steps += 1
            if steps > _MOST_STEPS:
                raise RuntimeError("the engine has requests that it never finishes")
            for output in self._engine.step():
                if output.finished and output.request_id not in told:
                    told[output.request_id] = list(output.outputs[0].token_ids)
                    cached[output.request_id] = output.num_cached_tokens or 0
        self._drain()
        self._scheduler.kv_cache_manager.block_pool.free_blocks(held)
        changed = set(list(self._mutation.changed)[before:]) if self._mutation else set()
        return {
            "told": [told[name] for name in names],
            "aborted": aborted,
            "changed": [place for place, name in enumerate(names) if name in changed],
            "cached": sum(cached.values()),
            "preempted": self._preempted,
            "steps": steps,
        }

    def mutate(self, kind: str | None) -> None:
        """Break the worker on purpose, see `mutations`; None mends it. The prefix cache is emptied."""
        if self._mutation is not None:
            self._mutation.undo()
        self._empty()
        self._mutation = None if kind is None else Mutation(self._llm, kind)

    def facts(self) -> dict[str, Any]:
        """What the engine decided by itself."""
        scheduling = self._engine.vllm_config.scheduler_config
        return {"async": bool(scheduling.async_scheduling), "policy": scheduling.policy}

    def _make_room(self, tokens: int, running: int, blocks: int, **_: Any) -> list[Any]:
        self._scheduler.max_num_scheduled_tokens = tokens
        self._scheduler.max_num_running_reqs = self._scheduler.max_num_active_reqs = running
        pool = self._scheduler.kv_cache_manager.block_pool
        held: list[Any] = pool.get_new_blocks(max(0, pool.get_num_free_blocks() - blocks))
        return held

    def _enqueue(self, request: Request, **more: Any) -> str:
        priority = {"priority": more.pop("priority")} if "priority" in more and self._by_priority else {}
        params = _params(request, more.get("logprobs"))
        if request.ids is not None:
            prompt = {"prompt_token_ids": list(request.ids)}
            (name,) = self._llm.enqueue([prompt], params, use_tqdm=False, **priority)
        else:
            pictures = [{"type": "image_pil", "image_pil": _picture(seed)} for seed in request.scenes]
            turn = {"role": "user", "content": [*pictures, {"type": "text", "text": request.text}]}
            (name,) = self._llm.enqueue_chat([[turn]], params, use_tqdm=False, **priority)
        return str(name).partition("-")[0]

    @property
    def _by_priority(self) -> bool:
        return bool(self._engine.vllm_config.scheduler_config.policy == "priority")

    def _so_far(self, name: str) -> list[int]:
        processor = self._engine.output_processor
        (internal,) = processor.external_req_ids[name]
        return list(processor.request_states[internal].detokenizer.output_token_ids)

    def _steps(self) -> Any:
        while self._engine.has_unfinished_requests():
            yield self._engine.step()

    def _drain(self) -> None:
        """Let steps end that are under way when nobody waits for them any more."""
        while self._core.batch_queue or self._scheduler.has_requests():
            self._engine.step()

    def _empty(self) -> None:
        self._drain()
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("blocks are in use while no request is")


def _params(request: Request, logprobs: int | None) -> Any:
    from vllm import SamplingParams

    steering = [{"profile": name, "alpha": alpha} for name, alpha in request.steering]
    return SamplingParams(
        temperature=0.0,
        max_tokens=request.max_tokens,
        ignore_eos=True,
        logprobs=logprobs,
        extra_args={"steering": steering} if steering else None,
    )


@functools.cache
def _picture(seed: int) -> Any:
    return draw(scene_of(seed))
