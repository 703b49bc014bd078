"""The field `steering` in vLLM's own request classes, which keep it and ignore it.

It is read where such a request becomes sampling parameters: so every door has it, and whatever else calls vLLM's
serving classes (`vllm run-batch`, a wrapper around them). What was meant to be the field and is not is refused there.

Leans on `to_sampling_params` and `to_beam_search_params` of vllm/entrypoints/openai/{chat_completion, completion,
responses}/protocol.py, whose classes keep unknown fields in `model_extra`, as do those of vllm/entrypoints
/speech_to_text/{transcription, translation}/protocol.py; and on vllm/entrypoints/anthropic/serving.py:
`AnthropicServingMessages._build_base_request`, which makes a chat completion of a message (0.29 to 0.32).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from trimtab.vectors.asked import FIELD, wish_of
from trimtab.vectors.errors import RequestError

from ..compat.wrapping import wrap
from .admission import refusals
from .look_alikes import CHAT_ROUTE, look_at
from .refused import MISPLACED

__all__ = ["CLASSES", "asked_in", "install", "no_beams"]

CLASSES = {
    "vllm.entrypoints.openai.chat_completion.protocol": "ChatCompletionRequest",
    "vllm.entrypoints.openai.completion.protocol": "CompletionRequest",
    "vllm.entrypoints.openai.responses.protocol": "ResponsesRequest",
}
_ANTHROPIC = "vllm.entrypoints.anthropic.serving"
_SPEECH = {
    "vllm.entrypoints.speech_to_text.transcription.protocol": "TranscriptionRequest",
    "vllm.entrypoints.speech_to_text.translation.protocol": "TranslationRequest",
}
# Declared fields that hold what a client likes.
_ELSEWHERE = ("vllm_xargs", "metadata", "chat_template_kwargs", "messages", "input")


def install() -> None:
    """Let vLLM's request classes hand `steering` on. Safe to call again."""
    for module, name in CLASSES.items():
        request = getattr(importlib.import_module(module), name)
        wrap(request, "to_sampling_params", _with_steering)
        if hasattr(request, "to_beam_search_params"):
            wrap(request, "to_beam_search_params", _without_steering)
    for module, name in _SPEECH.items():
        request = getattr(importlib.import_module(module), name)
        for method in ("to_sampling_params", "to_beam_search_params"):
            wrap(request, method, _unsteered)
    wrap(importlib.import_module(_ANTHROPIC).AnthropicServingMessages, "_build_base_request", _hand_on)


def asked_in(request: Any) -> Any:
    """The value of the field in a request of vLLM's, or of a subclass that declares it; None where it is not there.

    Raises:
        VLLMValidationError: a 400 over HTTP; another key was meant to be the field.
    """
    others = {name: value for name in _ELSEWHERE if isinstance(value := getattr(request, name, None), dict | list)}
    with refusals(MISPLACED):
        # Beside a prompt, which each of these requests has.
        look_at({"prompt": None, **(request.model_extra or {}), **others}, serves=True)
    return getattr(request, FIELD, None)


def no_beams() -> RequestError:
    """The error for a steered request with `use_beam_search`."""
    return RequestError("steering is not served with beam search; leave one of the two out")


def _with_steering(original: Callable[..., Any], request: Any, *args: Any, **kwargs: Any) -> Any:
    asked = asked_in(request)
    params = original(request, *args, **kwargs)
    if asked is not None:
        params.extra_args = {**(params.extra_args or {}), FIELD: asked}
    return params


def _without_steering(original: Callable[..., Any], request: Any, *args: Any, **kwargs: Any) -> Any:
    with refusals():
        wish = wish_of(asked_in(request))
        if wish.profiles or wish.experiment is not None:
            raise no_beams()
    return original(request, *args, **kwargs)


def _unsteered(original: Callable[..., Any], request: Any, *args: Any, **kwargs: Any) -> Any:
    """Of a form for speech, whose text fields are all that it can have."""
    with refusals(MISPLACED):
        if asked_in(request) is not None:
            raise RequestError(f"this route does not serve {FIELD!r}; use {CHAT_ROUTE} or leave the field out")
    return original(request, *args, **kwargs)


def _hand_on(original: Callable[..., Any], message: Any, *args: Any, **kwargs: Any) -> Any:
    chat = original(message, *args, **kwargs)
    if (asked := getattr(message, FIELD, None)) is not None:
        setattr(chat, FIELD, asked)
    # What Anthropic's clients call it.
    if chat.user is None and isinstance(metadata := getattr(message, "metadata", None), dict):
        chat.user = user if isinstance(user := metadata.get("user_id"), str) else None
    return chat
