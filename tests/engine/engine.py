"""Engines, each in a process of its own: a crash of one is a failed test and no lost test run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.engine import processes
from tests.engine.asking import Answer, Ask, Refusal

ROOT = Path(__file__).parents[2]
SMALL = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # one thread is enough for a tiny model, and shares a busy machine better
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the model lies in the process that answers us
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
V2 = {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"}


class RefusedError(Exception):
    """The engine refused to start, or refused a request."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.kind}: {refusal.message}")
        self.refusal = refusal


class Engine:
    """A running engine. Use it as a context manager.

    profiles: folder to steer with, None for none. plugin: False keeps every plugin out of its process. arm: further
    arguments of `engine_args`. llm: of `LLM`, beside those of a small float32 engine.
    """

    def __init__(
        self,
        log: Path,
        model: Path,
        profiles: Path | None,
        *,
        plugin: bool = True,
        env: Mapping[str, str] | None = None,
        arm: Mapping[str, Any] | None = None,
        capture: Sequence[int] = (),
        **llm: Any,
    ) -> None:
        defaults = {
            "dtype": "float32",
            "enforce_eager": True,
            "max_model_len": 512,
            "max_num_seqs": 16,
            "block_size": 32,
            "gpu_memory_utilization": 0.3,
            "max_logprobs": -1,
            "disable_log_stats": False,
        }
        options = {
            "model": str(model),
            "profiles": None if profiles is None else str(profiles),
            "arm": dict(arm or {}),
            "capture": list(capture),
            "llm": {**defaults, **llm},
        }
        self._log = log
        here = {} if profiles is None else {"TESTS_INSPECT_HERE": "1"}  # servers let vLLM do it in a process of its own
        other = {**({} if plugin else {"VLLM_PLUGINS": ""}), **here, **(env or {})}
        self._process, self._commands = processes.start(options, log, SMALL, other)
        try:
            self._reply()
        except BaseException:
            self.close()
            raise

    def ask(self, asks: Sequence[Ask], preempt: Sequence[int] = ()) -> list[Answer]:
        """The answers of a batch, all of whose requests are expected to be served."""
        return [_served(reply) for reply in self.try_all(asks, preempt)]

    def ask_alone(self, asks: Iterable[Ask]) -> list[Answer]:
        """The answers to requests that have the engine to themselves, one after the other, without cached prompts."""
        answers = []
        for ask in asks:
            self.forget()
            answers += self.ask([ask])
        return answers

    def try_all(self, asks: Sequence[Ask], preempt: Sequence[int] = ()) -> list[Answer | Refusal]:
        """An answer or a refusal for each request of a batch. preempt: see `tests.engine.host.Host.ask`."""
        replies = self.call("ask", asks=[ask.to_json() for ask in asks], preempt=list(preempt))
        return [Answer(**reply) if "prompt" in reply else Refusal(**reply) for reply in replies]

    def chat(self, asks: Sequence[Ask]) -> list[Answer]:
        """`LLM.chat` with all of them; raises RefusedError as that does."""
        return [Answer(**reply) for reply in self.call("chat", asks=[ask.to_json() for ask in asks])]

    def forget(self) -> None:
        """Empty the prefix cache."""
        assert self.call("forget")

    def call(self, do: str, **arguments: Any) -> Any:
        """The reply to one command, see `tests.engine.host.Host`."""
        self._commands.send(json.dumps({"do": do, **arguments}))
        return self._reply()

    def close(self) -> None:
        """End the process by closing the pipe to it, and wait for it."""
        self._commands.close()
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reply(self) -> Any:
        try:
            found = json.loads(self._commands.recv())
        except EOFError:
            ended = "".join(self._log.open().readlines()[-40:])
            raise RuntimeError(f"the engine's process ended:\n{ended}") from None
        if "refused" in found:
            raise RefusedError(Refusal(**found["refused"]))
        return found.get("reply")


def _served(reply: Answer | Refusal) -> Answer:
    if isinstance(reply, Refusal):
        raise RefusedError(reply)
    return reply
