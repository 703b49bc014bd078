"""The one place that every request passes with its prompt tokenised: HTTP doors and `LLM.generate` alike.

`engine` calls it after vLLM's `InputProcessor.process_inputs`.
"""

from __future__ import annotations

from typing import Any

from trimtab.vectors import Registry
from trimtab.vectors.asked import FIELD, parse
from trimtab.vectors.errors import RequestError

from ..config import SteeringConfig, open_registry
from .kv import WIRE_KEY
from .positions import pictures
from .request import resolve

__all__ = ["ASKED_KEY", "admit", "mentions_steering", "registry_of", "unsend_pictures"]

ASKED_KEY = FIELD
"""Where `SamplingParams.extra_args` carries what a caller asks for."""

_KEYS = frozenset({ASKED_KEY, WIRE_KEY})


def mentions_steering(request: Any) -> bool:
    """Whether an `EngineCoreRequest` asks for steering, or pretends to have been given it."""
    params = request.sampling_params
    return params is not None and bool(params.extra_args) and not params.extra_args.keys().isdisjoint(_KEYS)


def unsend_pictures(cache: Any, request: Any) -> None:
    """Let the front end forget that it has sent the pictures of a refused request to the engine.

    It took them for sent when it rendered the prompt; the next request with one of them would go without its data, and
    come back empty. Leans on vllm/multimodal/cache: BaseMultiModalProcessorCache.invalidate (0.29 to 0.32).
    """
    if cache is None or not request.mm_features:
        return
    for feature in request.mm_features:
        cache.invalidate(feature.mm_hash)


def registry_of(vllm_config: Any) -> Registry | None:
    """The profiles of an engine, loaded once a process; None for an engine without any."""
    config = SteeringConfig.of(vllm_config)
    return None if config is None else open_registry(config, vllm_config.model_config)


def admit(request: Any, registry: Registry | None) -> None:
    """Replace what an `EngineCoreRequest` asks for by its resolved form, in place.

    Raises:
        VLLMValidationError: a 400 over HTTP; nothing has been scheduled yet.
    """
    params = request.sampling_params
    if params is None or not params.extra_args:
        return
    from vllm.exceptions import VLLMValidationError

    if WIRE_KEY in params.extra_args:
        raise VLLMValidationError(
            f"extra_args[{WIRE_KEY!r}] is reserved; ask with extra_args[{ASKED_KEY!r}]", parameter=ASKED_KEY
        )
    if ASKED_KEY not in params.extra_args:
        return
    try:
        asked = parse(params.extra_args[ASKED_KEY])
        # The caller's dictionary may be shared by many requests: leave it as it is.
        extra_args = {key: value for key, value in params.extra_args.items() if key != ASKED_KEY}
        if asked:
            if request.resumable:
                raise RequestError("steering is not served on resumable (streaming-input) requests")
            resolved = resolve(
                asked, registry, prompt_length=prompt_length(request), pictures=pictures(request.mm_features or ())
            )
            extra_args[WIRE_KEY] = resolved.to_wire()
    except RequestError as error:
        raise VLLMValidationError(str(error), parameter=error.param) from error
    params.extra_args = extra_args or None


def prompt_length(request: Any) -> int:
    """Positions that the prompt takes, image placeholders included."""
    tokens = request.prompt_token_ids if request.prompt_token_ids is not None else request.prompt_embeds
    return len(tokens)
