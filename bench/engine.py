"""Engines to be measured, each in a process of its own; `bench.served` is the other end.

Several are alive and one works at a time, all of them on the same core. The process of a plain engine loads no plugin:
what it serves is vLLM as it comes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["MODEL", "TINYWORLD", "Engine", "Model", "engines"]

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "examples/tinyworld/model"


@dataclass(frozen=True)
class Model:
    """What the engines serve. limits: most pictures and videos of a prompt. brought: by trimtab, whose plugin a plain
    engine then needs as well, without profiles."""

    folder: Path
    limits: Mapping[str, int] = field(default_factory=dict)
    brought: bool = False


TINYWORLD = Model(MODEL)

_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the whole engine in one thread: nothing overlaps, nothing hides a cost
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # pinned by `bench.served`, once the engine has started
    "OMP_NUM_THREADS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONHASHSEED": "0",
}


class Engine:
    """A running engine: compiled, in the model's own dtype, or in float32 where the processor emulates bfloat16.

    profiles: folder to steer with; None is plain vLLM, without the plugin. policy: file of an access policy. core:
    where to run once it has started.
    """

    def __init__(
        self,
        name: str,
        profiles: Path | None,
        *,
        work: Path,
        core: int,
        model: Model = TINYWORLD,
        policy: Path | None = None,
    ) -> None:
        self._log = work / f"{name}.log"
        plugin = {"VLLM_PLUGINS": "trimtab" if profiles or model.brought else ""}
        if model.brought:
            plugin["VLLM_TRIMTAB"] = "1"
        settings = {**_SETTINGS, "VLLM_CACHE_ROOT": str(work / "cache"), **plugin}
        options = {
            "model": str(model.folder),
            "limits": dict(model.limits),
            "profiles": None if profiles is None else str(profiles),
            "policy": None if policy is None or profiles is None else str(policy),
            "core": core,
        }
        with self._log.open("w") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.served", json.dumps(options)],
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
        """The reply to one command, see `bench.served.Host`."""
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
            self._process.wait(5)
        except subprocess.TimeoutExpired:  # it has not started yet
            self._process.kill()
            self._process.wait()

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("an engine ended:\n" + "".join(self._log.open().readlines()[-40:]))
        return json.loads(line)


@contextlib.contextmanager
def engines(
    folders: Mapping[str, Path | None], *, work: Path, core: int, model: Model = TINYWORLD, policy: Path | None = None
) -> Iterator[dict[str, Engine]]:
    """An engine for each name, started side by side; they end with the block."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Engine] = {}
        for name, folder in folders.items():
            found[name] = Engine(name, folder, work=work, core=core, model=model, policy=policy)
            stack.callback(found[name].close)
        for engine in found.values():
            engine.wait()
        yield found
