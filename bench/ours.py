"""Our side of `bench.hooks`: an engine that steers and captures at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.offline.models.reader import Question

__all__ = ["MODEL", "PROFILE", "Case", "Run", "Served"]

MODEL = Path(__file__).parents[1] / "examples/tinyworld/model"
PROFILE = "coarse"

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """What is measured.

    steered: whether answers are steered, else rows are captured. target: least ratio, None where there is none. apart:
    whether each question has a picture of its own.
    """

    name: str
    unit: str
    tokens: int
    steered: bool
    target: float | None = None
    apart: bool = False


@dataclass(frozen=True)
class Run:
    """What one side did: how many answers or rows in how many seconds, what they are, and of which questions on."""

    count: int
    seconds: float
    tokens: list[list[int]]
    rows: dict[int, Float32]
    first: int = 0


class Served:
    """Our engine: compiled, steering and capturing at once."""

    def __init__(self, profiles: Path, layers: int, batch: int) -> None:
        from vllm import LLM

        from trimtab.plugin import engine_args
        from trimtab.plugin.capture import capture_args

        steered = engine_args(profiles, model=MODEL)
        self._llm: Any = LLM(
            str(MODEL),
            dtype="float32",
            max_model_len=512,
            max_num_seqs=batch,
            block_size=32,
            kv_cache_memory_bytes=512 << 20,
            **capture_args(range(layers), model=MODEL, **steered),
        )

    def run(self, case: Case, questions: Sequence[Question]) -> Run:
        """All of them at once; nothing is left of an earlier run."""
        from vllm import SamplingParams

        from trimtab.plugin.capture import capture

        self._llm.reset_prefix_cache()
        self._llm.llm_engine.reset_mm_cache()
        self._llm.llm_engine.reset_encoder_cache()
        extra = {"steering": PROFILE} if case.steered else None
        params = SamplingParams(
            temperature=0, max_tokens=case.tokens, ignore_eos=True, detokenize=False, extra_args=extra
        )
        started = time.perf_counter()
        if case.steered:
            outputs = self._llm.chat([_turn(question) for question in questions], params, use_tqdm=False)
            seconds = time.perf_counter() - started
            return Run(len(outputs), seconds, [list(output.outputs[0].token_ids) for output in outputs], {})
        captured = capture(
            self._llm,
            [_turn(question) for question in questions],
            positions="answer",
            sampling_params=params,
            use_tqdm=False,
        )
        seconds = time.perf_counter() - started
        rows = {layer: np.concatenate([one.rows[layer] for one in captured]) for layer in captured[0].rows}
        return Run(sum(map(len, rows.values())), seconds, [list(one.tokens) for one in captured], rows)


def _turn(question: Question) -> list[dict[str, Any]]:
    picture = {"type": "image_pil", "image_pil": question.image}
    return [{"role": "user", "content": [picture, {"type": "text", "text": question.text}]}]
