"""An engine in a process of its own: commands on stdin and replies on stdout, one JSON object a line.

Several are alive and one works at a time, all of them on the same core. The process of a plain engine loads no plugin:
what it serves is vLLM as it comes. Each one times itself, so that the pipe between the processes is in no figure.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.tinyworld.ask import CAPTION_PROMPT
from examples.tinyworld.draw import draw
from examples.tinyworld.scene import sample_split

__all__ = ["MODEL", "Engine", "Steering"]

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "examples/tinyworld/model"
MOST_REQUESTS = 32

Steering = dict[str, Any] | None

_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the whole engine in one thread: nothing overlaps, nothing hides a cost
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # pinned below, once the engine has started
    "OMP_NUM_THREADS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONHASHSEED": "0",
}
_LLM = {
    "max_model_len": 512,
    "max_num_seqs": 64,
    "block_size": 32,
    "kv_cache_memory_bytes": 256 << 20,
    "disable_log_stats": False,  # its time stamps are the latencies
}


class Engine:
    """A running engine: compiled, in the model's own dtype. Close it, or use it as a context manager.

    profiles: folder to steer with; None is plain vLLM, without the plugin. core: where to run once started.
    """

    def __init__(self, profiles: Path | None, *, work: Path, name: str, core: int) -> None:
        self._log = work / f"{name}.log"
        settings = {**_SETTINGS, "VLLM_CACHE_ROOT": str(work / "cache"), "VLLM_PLUGINS": "trimtab" if profiles else ""}
        options = json.dumps({"profiles": profiles and str(profiles), "core": core})
        with self._log.open("w") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.engine", options],
                cwd=ROOT,
                env={**os.environ, **settings},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
            )

    def wait(self) -> None:
        """Until it can be asked. Engines that are made before the first of them is waited for start side by side."""
        self._reply()

    def call(self, do: str, **arguments: Any) -> Any:
        """The reply to one command, see `Host`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._reply()

    def close(self) -> None:
        """End the process by ending its input."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:  # it has not started yet
            self._process.kill()
            self._process.wait()

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("an engine ended:\n" + "".join(self._log.open().readlines()[-40:]))
        return json.loads(line)


class Host:
    """The engine inside its process. Public methods are the commands."""

    def __init__(self, profiles: str | None, core: int) -> None:
        from vllm import LLM

        steered: dict[str, Any] = {}
        if profiles is not None:
            from trimtab.plugin import engine_args

            steered = engine_args(profiles, model=MODEL)
        self._llm: Any = LLM(str(MODEL), **_LLM, **steered)
        self._turns = [_turn(seed) for seed in range(MOST_REQUESTS)]
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {core})

    def run(self, steerings: Sequence[Steering], tokens: int) -> dict[str, Any]:
        """Answer as many requests as there are steerings at once, each with a picture of its own.

        Nothing is left of an earlier run but the pictures' pixels: prompts and pictures are computed anew.

        Returns:
            seconds, cpu (seconds): of the whole run. tokens: given out. ttft, tpot: seconds to the first token and
            between tokens, mean of the requests.
        """
        self._llm.reset_prefix_cache()
        self._llm.llm_engine.reset_encoder_cache()
        gc.collect()
        gc.disable()
        try:
            started, cpu = time.monotonic(), time.process_time()
            outputs = self._answer(steerings, tokens)
            seconds, cpu = time.monotonic() - started, time.process_time() - cpu
        finally:
            gc.enable()
        given = [len(output.outputs[0].token_ids) for output in outputs]
        if given != [tokens] * len(steerings):
            raise RuntimeError(f"{len(steerings)} answers of {tokens} tokens were due, not {given}")
        stamps = [(output.metrics.first_token_ts, output.metrics.last_token_ts) for output in outputs]
        return {
            "seconds": seconds,
            "cpu": cpu,
            "tokens": sum(given),
            "ttft": sum(first - started for first, _ in stamps) / len(stamps),
            "tpot": sum(last - first for first, last in stamps) / len(stamps) / (tokens - 1),
        }

    def hits(self, before: Sequence[Steering], after: Sequence[Steering]) -> float:
        """Share of prompt tokens that the second of two runs of the same prompts takes from the prefix cache."""
        self._llm.reset_prefix_cache()
        self._answer(before, tokens=2)
        outputs = self._answer(after, tokens=2)
        cached = sum(output.num_cached_tokens for output in outputs)
        return float(cached / sum(len(output.prompt_token_ids) for output in outputs))

    def settle(self) -> bool:
        """Take all objects that are alive now out of the garbage collector's sight. After warming up."""
        gc.collect()
        gc.freeze()
        return True

    def _answer(self, steerings: Sequence[Steering], tokens: int) -> list[Any]:
        from vllm import SamplingParams

        params = [
            SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, extra_args=_extra(steering))
            for steering in steerings
        ]
        self._llm.enqueue_chat(self._turns[: len(params)], params, use_tqdm=False)
        outputs: list[Any] = []
        while self._llm.llm_engine.has_unfinished_requests():
            outputs += [output for output in self._llm.llm_engine.step() if output.finished]
        return outputs


def _turn(seed: int) -> list[Any]:
    picture = draw(sample_split(random.Random(seed), "dev"))
    content = [{"type": "image_pil", "image_pil": picture}, {"type": "text", "text": CAPTION_PROMPT}]
    return [{"role": "user", "content": content}]


def _extra(steering: Steering) -> dict[str, Any] | None:
    return None if steering is None else {"steering": steering}


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
