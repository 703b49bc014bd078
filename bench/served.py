"""An engine inside its process: commands on stdin and replies on stdout, one JSON object a line.

It times itself, so that neither the pipe nor what runs between its turns is in any figure.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from examples.tinyworld.ask import CAPTION_PROMPT
from examples.tinyworld.draw import draw
from examples.tinyworld.precision import served_dtype
from examples.tinyworld.scene import sample_split

MOST_REQUESTS = 32
_ARRIVAL_STEPS = 8

_LLM: dict[str, Any] = {"max_model_len": 512, "max_num_seqs": 64, "block_size": 32, "kv_cache_memory_bytes": 256 << 20}

Steering = dict[str, Any] | None


class Host:
    """Public methods are the commands."""

    def __init__(
        self, model: str, profiles: str | None, policy: str | None, core: int, limits: Mapping[str, int]
    ) -> None:
        from vllm import LLM

        steered: dict[str, Any] = {}
        if profiles is not None:
            from trimtab.plugin import engine_args

            steered = engine_args(profiles, model=model, policy=policy)
        if limits:
            steered["limit_mm_per_prompt"] = dict(limits)
        self._llm: Any = LLM(model, dtype=served_dtype(), **_LLM, **steered)
        self._chats = [_chat(seed) for seed in range(MOST_REQUESTS)]
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {core})

    def begin(self, steerings: Sequence[Steering], tokens: int) -> None:
        """Prepare a run of as many requests as there are steerings, each with a picture of its own.

        Nothing is left of an earlier run but the pictures' pixels: prompts and pictures are computed anew.
        """
        self._llm.reset_prefix_cache()
        self._llm.llm_engine.reset_encoder_cache()
        self._run = _Run(self._llm, self._chats, _params(steerings, tokens))
        gc.collect()
        gc.disable()

    def turn(self, steps: int) -> dict[str, float] | None:
        """Take so many steps of the run; once it has ended, what it came to: see `_Run.result`."""
        for _ in range(steps):
            if not self._run.step():
                gc.enable()
                return self._run.result()
        return None

    def hits(self, before: Sequence[Steering], after: Sequence[Steering]) -> float:
        """Share of prompt tokens that the second of two runs of the same prompts takes from the prefix cache."""
        self._llm.reset_prefix_cache()
        outputs: list[Any] = []
        for steerings in (before, after):
            outputs = self._llm.chat(self._chats[: len(steerings)], _params(steerings, tokens=2), use_tqdm=False)
        cached = sum(output.num_cached_tokens for output in outputs)
        return float(cached / sum(len(output.prompt_token_ids) for output in outputs))

    def settle(self) -> None:
        """Take all objects that are alive now out of the garbage collector's sight. After warming up."""
        gc.collect()
        gc.freeze()


class _Run:
    """Requests that come over the first steps; in its own step and in each that follows a request gets a token."""

    def __init__(self, llm: Any, chats: Sequence[Any], params: Sequence[Any]) -> None:
        self._llm, self._chats, self._params = llm, chats, params
        self._tokens: int = params[0].max_tokens
        self._at_once = -(-len(params) // _ARRIVAL_STEPS)
        self._seconds: list[float] = []  # of each step
        self._ended = 0

    def step(self) -> bool:
        """Admit the next requests, if any are left, and let the engine take a step. Whether it has more to do."""
        started, step = time.perf_counter(), len(self._seconds)
        coming = slice(step * self._at_once, (step + 1) * self._at_once)
        if self._params[coming]:
            self._llm.enqueue_chat(self._chats[: len(self._params)][coming], self._params[coming], use_tqdm=False)
        outputs = self._llm.llm_engine.step()
        self._seconds.append(time.perf_counter() - started)
        for output in outputs:
            # Only if every step gave a token to every request do the latencies below hold.
            if step != self._came(self._ended) + self._tokens - 1 or len(output.outputs[0].token_ids) != self._tokens:
                raise RuntimeError(
                    f"answer {self._ended} ended at step {step} of the run, which is not when it was due"
                )
            self._ended += 1
        return self._ended < len(self._params)

    def result(self) -> dict[str, float]:
        """What the run came to, on this engine's own clock.

        throughput: tokens a second. ttft, tpot: seconds to the first and to each further token, mean of the requests.
        """
        came = [self._came(number) for number in range(len(self._params))]
        later = [sum(self._seconds[step + 1 : step + self._tokens]) for step in came]
        return {
            "throughput": len(came) * self._tokens / sum(self._seconds),
            "ttft": sum(self._seconds[step] for step in came) / len(came),
            "tpot": sum(later) / len(came) / (self._tokens - 1),
        }

    def _came(self, number: int) -> int:
        return number // self._at_once


def _params(steerings: Sequence[Steering], tokens: int) -> list[Any]:
    from vllm import SamplingParams

    return [
        SamplingParams(
            temperature=0,
            max_tokens=tokens,
            ignore_eos=True,
            extra_args=None if steering is None else {"steering": steering},
        )
        for steering in steerings
    ]


def _chat(seed: int) -> list[Any]:
    picture = draw(sample_split(random.Random(seed), "dev"))
    content = [{"type": "image_pil", "image_pil": picture}, {"type": "text", "text": CAPTION_PROMPT}]
    return [{"role": "user", "content": content}]


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to the log
    host = Host(**json.loads(sys.argv[1]))
    replies.write(json.dumps("ready") + "\n")
    for line in sys.stdin:
        command = json.loads(line)
        replies.write(json.dumps(getattr(host, command.pop("do"))(**command)) + "\n")
    os._exit(0)  # there is nothing to save, and an orderly end takes seconds


if __name__ == "__main__":
    main()
