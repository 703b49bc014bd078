"""The HTTP doors: `steering` on chat completions, `X-Steering-*` headers, and discovery.

Leans on vllm/plugins/endpoint_plugins (official) and on vllm/entrypoints/openai/chat_completion:
`ChatCompletionRequest` and `create_chat_completion` (0.29 to 0.32). Our route replaces vLLM's own, so that the
field shows in /openapi.json, and calls it, so that everything that it does is still done by it.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import Field, WithJsonSchema
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.chat_completion import api_router as vllm_chat
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.serve.utils.api_utils import validate_json_request
from vllm.exceptions import VLLMNotFoundError

from trimtab.vectors import Profile, Registry
from trimtab.vectors.asked import MOST_PROFILES, NONE, parse
from trimtab.vectors.errors import UnknownProfileError

from ..config import PLUGIN_NAME, SteeringConfig
from ..errors import StartupError
from ..requests import front
from ..requests.admission import observers, refusals, registry_of
from ..requests.dose import check_dose, largest_addition
from ..requests.look_alikes import CHAT_ROUTE
from ..requests.request import choose, no_positions
from ..runners.handshake import check_workers
from . import metrics
from .cards import card
from .guard import RefuseMisplacedSteering
from .pictures import has_pictures

__all__ = ["CHAT_ROUTE", "EndpointPlugin", "SteeredChatCompletionRequest", "endpoint_plugin"]

_PROFILE = [
    {"type": "string", "description": "name of a profile"},
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
        {"type": "null"},
    ]
}


class SteeredChatCompletionRequest(ChatCompletionRequest):
    """vLLM's request with one more field, so that it shows in /openapi.json; it is read in `requests.fields`."""

    steering: Annotated[Any, WithJsonSchema(_SCHEMA)] = Field(
        default=None,
        description='Steering of this request: "NAME", {"profile": "NAME", "alpha": 0.8}, a list of these, or "none".',
    )


router = APIRouter()


# What vLLM documents of its own route: its summary aside, all of it is true of ours.
_DOCUMENTED = next(
    route.responses for route in vllm_chat.router.routes if isinstance(route, APIRoute) and route.path == CHAT_ROUTE
)


@router.post(
    CHAT_ROUTE,
    dependencies=[Depends(validate_json_request)],
    responses=_DOCUMENTED,
    summary="Create Chat Completion",
    description="vLLM's chat completions, with one field more: `steering` names the profiles to steer the answer by.",
)
async def create_steered_chat_completion(request: SteeredChatCompletionRequest, raw_request: Request) -> Response:
    """vLLM's own chat completions. What can be refused is, before the prompt is rendered (see `sent_pictures`)."""
    with refusals():
        chosen = choose(parse(request.steering), _registry(raw_request))
        check_dose(chosen, raw_request.app.state.steering_most)
        for profile, _ in chosen:
            if profile.manifest.positions == "image" and not has_pictures((await raw_request.json())["messages"]):
                raise no_positions(profile)
    response: Response = await vllm_chat.create_chat_completion(request, raw_request)
    if response is not None and response.status_code == 200:
        response.headers.update(_headers(chosen))
    return response


def _headers(chosen: Sequence[tuple[Profile, float]]) -> dict[str, str]:
    """Comma-separated where a request adds profiles up, in its order."""
    if not chosen:
        return {"X-Steering-Profile": NONE}
    return {
        "X-Steering-Profile": ", ".join(profile.name for profile, _ in chosen),
        "X-Steering-Alpha": ", ".join(repr(alpha) for _, alpha in chosen),
        "X-Steering-Digest": ", ".join(profile.digest for profile, _ in chosen),
    }


@router.get("/v1/steering/profiles")
async def list_profiles(raw_request: Request) -> dict[str, Any]:
    """The profiles that requests may name."""
    registry = _registry(raw_request)
    return {"object": "list", "data": [card(profile) for profile in (registry or {}).values()]}


@router.get("/v1/steering/profiles/{name}")
async def show_profile(name: str, raw_request: Request) -> dict[str, Any]:
    """One of them."""
    registry = _registry(raw_request) or Registry(())
    try:
        return card(registry[name])
    except UnknownProfileError as error:
        raise VLLMNotFoundError(str(error)) from error


def _registry(raw_request: Request) -> Registry | None:
    found: Registry | None = raw_request.app.state.steering
    return found


def check_route(app: FastAPI) -> None:
    """Refuse to serve where chat completions are not ours: the field would be accepted and ignored.

    Raises:
        StartupError: another endpoint plugin has put its own route before ours.
    """
    served = [route for route in app.routes if getattr(route, "path", None) == CHAT_ROUTE]
    if not served or getattr(served[0], "endpoint", None) is not create_steered_chat_completion:
        raise StartupError(
            f"another plugin serves {CHAT_ROUTE}, which would not read the `steering` field; keep one of the two out "
            "of VLLM_PLUGINS"
        )


class EndpointPlugin:
    """What vLLM asks of an entry point in `vllm.endpoint_plugins`."""

    name = PLUGIN_NAME
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        app.state.steering, app.state.steering_most = None, math.inf
        front.install()
        # Since 0.32 vLLM lets a plugin's route replace its own. Before, its own stays in front, and ignores the field.
        app.router.routes[:] = [route for route in app.routes if getattr(route, "path", None) != CHAT_ROUTE]
        app.include_router(router)
        self._app = app
        # Added here, it runs inside vLLM's authentication.
        app.add_middleware(RefuseMisplacedSteering, covered=frozenset({CHAT_ROUTE}))

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        if engine_client is None:  # a server that only renders prompts
            return
        check_route(self._app)
        state.steering = registry_of(engine_client.vllm_config)
        state.steering_most = largest_addition(engine_client.vllm_config.model_config.dtype)
        metrics.announce(state.steering)
        if metrics.count not in observers:
            observers.append(metrics.count)
        config = SteeringConfig.of(engine_client.vllm_config)
        if config is not None:
            await check_workers(engine_client, config.digest)


def endpoint_plugin() -> EndpointPlugin:
    """Entry point of `vllm.endpoint_plugins`; vLLM loads it only when `VLLM_PLUGINS` names it."""
    return EndpointPlugin()
