"""The one place that every request passes with its prompt tokenised: HTTP doors and `LLM.generate` alike.

Leans on vllm/v1/engine/input_processor.py: InputProcessor.process_inputs (0.29 to 0.32).
"""

from __future__ import annotations

import functools
from typing import Any

from trimtab.vectors import Registry
from trimtab.vectors.asked import FIELD, parse
from trimtab.vectors.errors import RequestError

from ..capture import calls as capture
from ..capture import request as capture_request
from ..config import MODELS_MODULE, SteeringConfig, check_architecture, open_registry
from ..errors import StartupError
from .kv import WIRE_KEY
from .positions import pictures
from .request import resolve

__all__ = ["ASKED_KEY", "admit", "install", "registry_of"]

ASKED_KEY = FIELD
"""Where `SamplingParams.extra_args` carries what a caller asks for."""

_KEYS = frozenset({ASKED_KEY, WIRE_KEY, capture_request.ASKED_KEY, capture_request.WIRE_KEY})


def install() -> None:
    """Let `InputProcessor` check the engine when it is made, and resolve steering. Safe to call again."""
    from vllm.v1.engine.input_processor import InputProcessor

    process, make = InputProcessor.process_inputs, InputProcessor.__init__
    if hasattr(process, WIRE_KEY):
        return

    @functools.wraps(make)
    def init(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        captures = capture_request.CaptureConfig.of(vllm_config) is not None
        if captures or SteeringConfig.of(vllm_config) is not None:
            check_registered(vllm_config.model_config)
        if captures:
            capture.install_release()
        make(self, vllm_config, *args, **kwargs)

    @functools.wraps(process)
    def process_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = process(self, *args, **kwargs)
        if not mentions_steering(request):
            return request
        try:
            admit(request, registry_of(self.vllm_config))
            capture_request.admit(request, self.vllm_config)
        except Exception:
            _unsend_pictures(self.renderer.mm_processor_cache, request)
            raise
        return request

    setattr(process_inputs, WIRE_KEY, True)
    InputProcessor.process_inputs = process_inputs  # type: ignore[method-assign]
    InputProcessor.__init__ = init  # type: ignore[method-assign]


def check_registered(model: Any) -> None:
    """Refuse an engine whose model class is not ours, before it starts: nothing would be armed.

    Raises:
        StartupError: an architecture that is not covered, or a class that `--model-class-overrides` or another plugin
            put over ours.
    """
    from vllm import ModelRegistry

    check_architecture(model.architecture)
    registered = ModelRegistry.models.get(model.architecture)
    if getattr(registered, "module_name", None) != MODELS_MODULE:
        raise StartupError(
            f"something has registered another class for {model.architecture}, which trimtab would not arm; start "
            "without --model-class-overrides and without the other plugin, or without profiles"
        )


def mentions_steering(request: Any) -> bool:
    """Whether an `EngineCoreRequest` asks for steering or capture, or pretends to have been given it."""
    params = request.sampling_params
    return params is not None and bool(params.extra_args) and not params.extra_args.keys().isdisjoint(_KEYS)


def _unsend_pictures(cache: Any, request: Any) -> None:
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
