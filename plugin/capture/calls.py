"""Rows of the residual stream, for work offline, from an engine that serves.

    llm = LLM(model, **capture_args(layers=[3, 5], model=model))
    captured = capture(llm, conversations, positions="answer", sampling_params=SamplingParams(max_tokens=32))
    captured[0].rows[3]                   # float32 [n, D], at captured[0].positions
    write_states(llm, captured, folder)     # a folder that `trimtab.offline.load_states` reads (see capture_folder)

A row is hidden + residual after a decoder layer and before the next one or the final norm, in float32: what a forward
hook on that layer sees in transformers. Requests that capture and requests that do not share batches, the compiled
graph and chunked prefill; which positions are handed out each request says for itself. A request that is steered hands
out the stream after the addition.

Rows wait in the worker's host memory until they are taken, and are released when their request is aborted. For `LLM`,
in its own process or not; HTTP routes do not serve them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.vectors import ModelIdentity
from trimtab.vectors.errors import RequestError

from ..asking import ask
from ..compat.versions import check_vllm, installed_vllm
from ..compat.wrapping import wrap
from ..config import check_layers, check_plugin_allowed
from ..errors import StartupError
from .request import ASKED_KEY, CaptureConfig

__all__ = ["Captured", "capture", "capture_args", "take"]

Float32 = npt.NDArray[np.float32]

_AT_A_TIME = 64
"""Requests whose rows cross from the worker in one message."""


@dataclass(frozen=True)
class Captured:
    """What was captured of one request.

    rows: layer → float32 [n, D]. positions: int64 [n], ascending, counted from the prompt's first token (placeholders
    of pictures included). prompt, tokens: ids of the prompt and of the answer. text: the answer. ended: the last token
    is an end token; else the answer was cut.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    positions: npt.NDArray[np.int64]
    rows: Mapping[int, Float32] = field(repr=False)
    ended: bool = False


def capture_args(
    layers: Iterable[int],
    *,
    model: str | Path | None = None,
    additional_config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Keyword arguments for `vllm.LLM(...)` that let requests capture the rows of some decoder layers.

    Sets VLLM_TRIMTAB=1 in this process and all that it starts, as `engine_args` does.

    Args:
        layers: decoder layers, 0-based. Each takes max_num_batched_tokens × D × 4 bytes on the device.
        model: folder of the model, to check the layers now; the engine checks again when it starts.
        additional_config: the engine's own, kept beside ours; that of `engine_args(…)` to steer and capture.

    Raises:
        StartupError: vLLM is missing or outside the supported range, `VLLM_PLUGINS` keeps trimtab out, no layer, or one
            that the model lacks.
    """
    check_vllm(installed_vllm())
    check_plugin_allowed()
    chosen = tuple(sorted(set(layers)))
    if not chosen:
        raise StartupError("capture needs at least one layer; write capture_args(layers=[…])")
    if model is not None:
        check_layers(chosen, ModelIdentity.of(Path(model)).num_layers)
    ask()
    return {"additional_config": {**(additional_config or {}), **CaptureConfig(chosen).to_additional_config()}}


def capture(
    llm: Any,
    prompts: Sequence[Any],
    *,
    positions: str = "last_prompt",
    sampling_params: Any = None,
    use_tqdm: bool = True,
) -> list[Captured]:
    """Answer prompts and hand out rows of the stream that wrote the answers, in the order of the prompts.

    Args:
        llm: a `vllm.LLM` that was made with `capture_args`.
        prompts: each a prompt as `LLM.generate` takes it, or each a conversation (a list of messages) for `LLM.chat`.
        positions: one of `capture_request.KINDS`, the same for all; see there what they mean.
        sampling_params: one for all, or one each; None generates a single token greedily.

    Raises:
        RequestError, VLLMValidationError: what cannot be captured, before anything is generated. Whatever is raised,
            nothing stays behind in the worker.
    """
    from vllm import SamplingParams

    if not prompts:
        return []
    asked = sampling_params or SamplingParams(temperature=0.0, max_tokens=1)
    each = asked if isinstance(asked, Sequence) else [asked] * len(prompts)
    params = [one.clone() for one in each]
    for one in params:
        one.extra_args = {**(one.extra_args or {}), ASKED_KEY: {"positions": positions}}
    chats = all(isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping) for prompt in prompts)
    ask = llm.chat if chats else llm.generate
    first = llm.request_counter.counter
    try:
        return take(llm, ask(list(prompts), params, use_tqdm=use_tqdm))
    except BaseException:
        llm.llm_engine.abort_request([str(number) for number in range(first, llm.request_counter.counter)])
        raise


def take(llm: Any, outputs: Sequence[Any]) -> list[Captured]:
    """The rows of finished requests, each once, given what `LLM.generate` or `LLM.chat` said of them.

    Raises:
        RequestError: a request captured nothing, or its rows were taken before.
    """
    config = CaptureConfig.of(llm.llm_engine.vllm_config)
    if config is None:
        raise StartupError("this engine was not started for capture; start it with capture_args(layers=…)")
    size = llm.llm_engine.vllm_config.model_config.get_hidden_size()
    taken: list[Captured] = []
    for start in range(0, len(outputs), _AT_A_TIME):
        some = outputs[start : start + _AT_A_TIME]
        found: dict[str, Any] = {}
        for worker in llm.collective_rpc("trimtab_capture_take", args=([output.request_id for output in some],)):
            found.update(worker)
        for output in some:
            if output.request_id not in found:
                raise RequestError(
                    f"request {output.request_id} has no rows to take: it did not ask for capture, or they were taken",
                    param=ASKED_KEY,
                )
            taken.append(_captured(output, size, *found[output.request_id]))
    return taken


def _captured(output: Any, size: int, positions: bytes, rows: Mapping[str, bytes]) -> Captured:
    answer = output.outputs[0]
    at = np.frombuffer(positions, np.int64)
    # The engine may have begun the step after the last one before it knew that it was the last.
    at = at[at < len(output.prompt_token_ids) + len(answer.token_ids) - 1]
    named = {int(layer): np.frombuffer(values, np.float32).reshape(-1, size) for layer, values in rows.items()}
    return Captured(
        prompt=tuple(output.prompt_token_ids),
        tokens=tuple(answer.token_ids),
        text=answer.text,
        positions=at.copy(),
        rows={layer: values[: len(at)].copy() for layer, values in named.items()},
        ended=answer.finish_reason == "stop",
    )


def install_release() -> None:
    """Let an aborted request take its rows with it. Called where an engine captures; safe to call again.

    Leans on vllm/v1/engine/llm_engine.py: LLMEngine.abort_request (0.29 to 0.32).
    """
    from vllm.v1.engine.llm_engine import LLMEngine

    wrap(LLMEngine, "abort_request", _abort)


def _abort(original: Callable[..., None], self: Any, request_ids: list[str], *args: Any, **kwargs: Any) -> None:
    original(self, request_ids, *args, **kwargs)
    if CaptureConfig.of(self.vllm_config) is not None:
        self.collective_rpc("trimtab_capture_release", args=(list(request_ids),))
