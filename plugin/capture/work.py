"""`trimtab-capture`: an engine in a process of its own, which captures what another process asks of it.

    python -m trimtab.plugin.capture FOLDER

`trimtab represent --engine vllm` starts it. What the two say to each other is in `trimtab.vectors.tasks`. It prints
vLLM's log, ends where its input ends, and ends with its parent.

Exit codes: 0 where its input ended, 1 for a refusal or an engine that failed, and then the last line says why.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trimtab.vectors import tasks
from trimtab.vectors.errors import TrimtabError, printable
from trimtab.vectors.tasks import Answered, Job, Task

__all__ = ["run"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LONGEST = 300


def run() -> int:
    """Capture until the input ends; the exit code."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if importlib.util.find_spec("vllm") is None:
        return _say("vLLM is not installed in this Python; run: pip install 'trimtab[gpu]' (or 'trimtab[cpu]')")
    try:
        _serve(Path(sys.argv[1]))
    except TrimtabError as error:
        return _say(str(error))
    except Exception as error:  # whatever vLLM raises: the process ends, and its last line says of what
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}"
        return _say(f"vLLM ended with {said if len(said) <= _LONGEST else said[:_LONGEST] + ' …'}")
    return 0


def _say(sentence: str) -> int:
    print(f"{tasks.PROGRAM}: {printable(' '.join(sentence.split()))}", file=sys.stderr, flush=True)
    return 1


def _serve(folder: Path) -> None:
    # The rows need not cross from one process to another; set it to 1 to have the engine apart all the same.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from ..errors import StartupError
    from .calls import capture_args

    job = Job.read(folder)
    own = job.arguments.get("additional_config")
    if not isinstance(own, dict | None):
        raise StartupError("additional_config must be a JSON object; correct it in --engine-args")
    ours = capture_args(job.layers, model=job.model, additional_config=own)
    from vllm import LLM

    settings: dict[str, Any] = {"max_num_seqs": job.at_once, **job.arguments, **ours}
    llm = LLM(model=job.model, **{**settings, "dtype": job.dtype})
    size = llm.llm_engine.vllm_config.model_config.get_hidden_size()
    for line in sys.stdin:
        number = int(line)
        answers = _answers(llm, job, tasks.read_tasks(folder, number))
        tasks.write_answers(folder, number, answers, size, job.layers)


def _answers(llm: Any, job: Job, asked: Sequence[Task]) -> Iterator[tuple[Answered, dict[int, Any]]]:
    """What became of each task. Where vLLM refuses one of several, they are asked in halves until it stands alone."""
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    from .calls import capture

    params = SamplingParams(temperature=0.0, max_tokens=max(job.max_tokens, 1), detokenize=False)
    try:
        captured = capture(
            llm, [_prompt(task) for task in asked], positions=job.positions, sampling_params=params, use_tqdm=False
        )
    except (VLLMValidationError, ValueError) as error:  # the prompt is too long, the processor refuses its picture, …
        if len(asked) == 1:
            yield Answered(number=asked[0].number, reason=_reason(error)), {}
            return
    else:
        for task, one in zip(asked, captured, strict=True):
            yield Answered(number=task.number, tokens=one.tokens, ended=one.ended), dict(one.rows)
        return
    half = (len(asked) + 1) // 2
    yield from _answers(llm, job, asked[:half])
    yield from _answers(llm, job, asked[half:])


def _prompt(task: Task) -> dict[str, Any]:
    """As vLLM's chat route hands on what it has rendered."""
    prompt: dict[str, Any] = {"prompt_token_ids": list(task.tokens)}
    if task.image is not None:
        from vllm.multimodal.media.image import ImageMediaIO

        prompt["multi_modal_data"] = {"image": ImageMediaIO().load_file(Path(task.image)).media}
    return prompt


def _reason(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"the engine refuses it ({printable(line[:200])})"
