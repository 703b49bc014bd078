"""What a request may capture: which engines can, which positions there are, and the one place where it is checked.

`extra_args["capture"]` = {"positions": KIND} is replaced at admission by spans of positions, which is all that the
worker needs to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from trimtab.vectors.errors import RequestError
from trimtab.vectors.manifest import Positions

from ..asking import CAPTURE_KEY
from ..errors import StartupError
from ..requests.positions import Spans, pictures, spans_of

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["ASKED_KEY", "KINDS", "WIRE_KEY", "CaptureConfig", "admit", "check_capturable", "spans_wanted"]

ASKED_KEY = "capture"
"""Where `SamplingParams.extra_args` carries what a caller asks for."""

WIRE_KEY = "trimtab_capture"
"""Where `SamplingParams.extra_args` of an admitted request carries its spans. Reserved."""

KINDS = ("last_prompt", "prompt", "answer", "all", "image", "text")
"""`answer`: the positions that predict an answer token, which are the last of the prompt and all but the last generated
one. `last_prompt`: the first of these. `prompt`: the positions before it. `image`: those that pictures take in the
prompt; `text`: the others of the prompt. `all`: every position that is computed."""


@dataclass(frozen=True)
class CaptureConfig:
    """The decoder layers of an engine whose rows can be captured, fixed at start."""

    layers: tuple[int, ...]
    op_version: int = 1

    def to_additional_config(self) -> dict[str, Any]:
        """In `additional_config` it reaches every process, and is part of the key of vLLM's compile cache."""
        return {CAPTURE_KEY: {"layers": list(self.layers), "op_version": self.op_version}}

    @classmethod
    def of(cls, vllm_config: VllmConfig) -> CaptureConfig | None:
        """The capture part of an engine's configuration; None for an engine that was not started for it."""
        additional = vllm_config.additional_config
        found = additional.get(CAPTURE_KEY) if isinstance(additional, Mapping) else None
        return None if found is None else cls(tuple(found["layers"]), found["op_version"])


def check_capturable(vllm_config: VllmConfig) -> None:
    """Refuse what could make rows wrong, beside what `features.check_features` refuses for steering.

    Raises:
        StartupError: naming the feature, the reason and the way out.
    """
    refused = {
        "speculative decoding": (
            vllm_config.speculative_config is not None,
            "rows of drafts that are not accepted would be handed out",
        ),
        "pipeline parallelism": (
            vllm_config.parallel_config.pipeline_parallel_size > 1,
            "no single worker has the rows of all layers",
        ),
    }
    for feature, (is_on, reason) in refused.items():
        if is_on:
            raise StartupError(f"trimtab cannot capture with {feature}: {reason}; switch it off")


def admit(request: Any, vllm_config: VllmConfig) -> None:
    """Replace what an `EngineCoreRequest` wants captured by its resolved form, in place.

    Raises:
        VLLMValidationError: a 400 over HTTP; nothing has been scheduled yet.
    """
    params = request.sampling_params
    if params is None or not params.extra_args or params.extra_args.keys().isdisjoint((ASKED_KEY, WIRE_KEY)):
        return
    from vllm.exceptions import VLLMValidationError

    try:
        if WIRE_KEY in params.extra_args:
            raise RequestError(
                f"extra_args[{WIRE_KEY!r}] is reserved; ask with extra_args[{ASKED_KEY!r}]", param=ASKED_KEY
            )
        kind = parse(params.extra_args[ASKED_KEY])
        _check_servable(request, CaptureConfig.of(vllm_config))
    except RequestError as error:
        raise VLLMValidationError(str(error), parameter=error.param) from error
    length = len(request.prompt_token_ids)
    spans = spans_wanted(kind, length, pictures(feature.mm_position for feature in request.mm_features or ()))
    # The caller's dictionary may be shared by many requests: leave it as it is.
    others = {key: value for key, value in params.extra_args.items() if key != ASKED_KEY}
    params.extra_args = {**others, WIRE_KEY: {"key": request.request_id, "spans": spans}}
    if any(start < length - 1 for start, _ in spans):
        # A cached row is not computed, so there would be none. The last of the prompt is always computed.
        params.skip_reading_prefix_cache = True


def parse(value: object) -> str:
    """The kind of positions that the value of `capture` names.

    Raises:
        RequestError: anything else than {"positions": KIND}.
    """
    form = f'write {{"positions": KIND}}, KIND one of {", ".join(KINDS)}'
    if not isinstance(value, Mapping):
        raise RequestError(f"capture must be an object, not {type(value).__name__}; {form}", param=ASKED_KEY)
    unknown = sorted(str(key)[:80] for key in value if key != "positions")
    if unknown:
        raise RequestError(f"unknown field {unknown[0]!r} in capture; {form}", param=f"{ASKED_KEY}.{unknown[0]}")
    kind = value.get("positions")
    if not isinstance(kind, str) or kind not in KINDS:
        raise RequestError(f"capture.positions cannot be {str(kind)[:80]!r}; {form}", param=f"{ASKED_KEY}.positions")
    return kind


def _check_servable(request: Any, config: CaptureConfig | None) -> None:
    if config is None:
        raise RequestError(
            "this engine was not started for capture; start it with trimtab.plugin.capture.capture_args(layers=…)",
            param=ASKED_KEY,
        )
    if request.sampling_params.n > 1:
        raise RequestError("capture is served for one answer a request; leave n at 1", param="n")
    if request.resumable:
        raise RequestError("capture is not served on resumable (streaming-input) requests", param=ASKED_KEY)
    if request.prompt_token_ids is None:
        raise RequestError("capture is not served on prompts of embeddings; give tokens or text", param=ASKED_KEY)


def spans_wanted(kind: str, length: int, pictures: Spans = ()) -> Spans:
    """The positions that a kind stands for, in order, given the prompt's length (≥ 1)."""
    if kind == "last_prompt":
        return ((length - 1, length),)
    return spans_of(cast(Positions, kind), length, pictures)
