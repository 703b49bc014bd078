"""vLLM's own routes with one field more, so that it shows in /openapi.json and no request class drops it.

Each of ours calls vLLM's, so that everything that it does is still done by it. The field is read in `requests.fields`.

Leans on vllm/plugins/endpoint_plugins (official), and on the routes and request classes of vllm/entrypoints/openai
/{chat_completion, completion, responses} and of vllm/entrypoints/anthropic (0.29 to 0.32).
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from pydantic import Field, WithJsonSchema, create_model
from vllm.entrypoints.anthropic import api_router as messages
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.openai.chat_completion import api_router as chat
from vllm.entrypoints.openai.chat_completion.protocol import BatchChatCompletionRequest, ChatCompletionRequest
from vllm.entrypoints.openai.completion import api_router as completions
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses import api_router as responses
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from trimtab.vectors.asked import FIELD, MOST_PROFILES

from ..errors import StartupError
from .routes import BATCH, CHAT, COMPLETIONS, MESSAGES, RESPONSES

__all__ = ["REQUESTS", "check_routes", "replace_routes"]

_DOORS: tuple[tuple[str, APIRouter, Any], ...] = (
    (CHAT, chat.router, ChatCompletionRequest),
    (BATCH, chat.router, BatchChatCompletionRequest),
    (COMPLETIONS, completions.router, CompletionRequest),
    (RESPONSES, responses.router, ResponsesRequest),
    (MESSAGES, messages.router, AnthropicMessagesRequest),
)

_PROFILE = [
    {"type": "string", "description": "name of a profile, with a strength or a version after it: NAME@0.8"},
    {
        "type": "object",
        "properties": {"profile": {"type": "string"}, "alpha": {"type": "number"}},
        "required": ["profile"],
        "additionalProperties": False,
    },
]
_SCHEMA = {
    "anyOf": [
        *_PROFILE,
        {"type": "array", "items": {"anyOf": _PROFILE}, "minItems": 1, "maxItems": MOST_PROFILES},
        {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("experiment", "unit", "arm")},
            "required": ["experiment"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"unit": {"type": "string"}, "profile": {"type": "string"}, "alpha": {"type": "number"}},
            "required": ["unit"],
            "additionalProperties": False,
        },
        {"type": "null"},
    ]
}
_DESCRIPTION = (
    'Steering of this request: "NAME", {"profile": "NAME", "alpha": 0.8}, a list of these, "none", or '
    '{"experiment": "NAME", "unit": "ID"}.'
)


def _with_steering(kind: Any) -> Any:
    fields: dict[str, Any] = {FIELD: (Annotated[Any, WithJsonSchema(_SCHEMA)], Field(None, description=_DESCRIPTION))}
    return create_model(f"Steered{kind.__name__}", __base__=kind, **fields)


REQUESTS: dict[str, Any] = {path: _with_steering(kind) for path, _, kind in _DOORS}
"""vLLM's request class with the field, by route."""


def _router() -> APIRouter:
    router = APIRouter()
    for path, theirs, _ in _DOORS:
        route = next(route for route in theirs.routes if isinstance(route, APIRoute) and route.path == path)
        router.add_api_route(
            path,
            _with_field(route.endpoint, REQUESTS[path]),
            methods=["POST"],
            dependencies=route.dependencies,
            responses=route.responses,
            summary=route.summary,
            description=f"vLLM's own, with one field more: `{FIELD}` names the profiles to steer the answer by.",
        )
    return router


def _with_field(endpoint: Any, kind: Any) -> Any:
    async def answer(request: Any, raw_request: Request) -> Any:
        return await endpoint(request, raw_request)

    kinds = {"request": kind, "raw_request": Request}
    parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=k) for n, k in kinds.items()]
    # What FastAPI reads a body by.
    setattr(answer, "__signature__", inspect.Signature(parameters))  # noqa: B010
    answer.__name__ = endpoint.__name__
    return answer


def replace_routes(app: FastAPI) -> None:
    """Put ours where vLLM's were."""
    # Since 0.32 vLLM lets a plugin's route replace its own. Before, its own stays in front.
    app.router.routes[:] = [route for route in app.routes if getattr(route, "path", None) not in REQUESTS]
    app.include_router(_ROUTER)


_ROUTER = _router()
_ENDPOINTS = {route.path: route.endpoint for route in _ROUTER.routes if isinstance(route, APIRoute)}


def check_routes(app: FastAPI) -> None:
    """Refuse to serve where one of these routes is not ours: the field might be accepted and ignored.

    Raises:
        StartupError: another endpoint plugin has put its own route before ours.
    """
    for path, endpoint in _ENDPOINTS.items():
        served = next((route for route in app.routes if getattr(route, "path", None) == path), None)
        if getattr(served, "endpoint", None) is not endpoint:
            raise StartupError(
                f"another plugin serves {path}, which would not read the `{FIELD}` field; keep one of the two out of "
                "VLLM_PLUGINS"
            )
