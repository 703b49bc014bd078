"""The HTTP doors: `steering` on chat completions, `X-Steering-*` headers, and discovery.

Leans on vllm/plugins/endpoint_plugins (official) and on vllm/entrypoints/openai/chat_completion:
`ChatCompletionRequest` and `create_chat_completion` (0.29 to 0.32). Our route replaces vLLM's own, so that the
field shows in /openapi.json, and calls it, so that everything that it does is still done by it.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from pydantic import Field, WithJsonSchema
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.chat_completion import api_router as vllm_chat
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.serve.utils.api_utils import validate_json_request
from vllm.exceptions import VLLMNotFoundError, VLLMValidationError
from vllm.sampling_params import SamplingParams

from trimtab.vectors import Profile, Registry
from trimtab.vectors.asked import MOST_PROFILES, NONE, parse
from trimtab.vectors.errors import RequestError, UnknownProfileError

from ..config import PLUGIN_NAME, SteeringConfig
from ..errors import StartupError
from ..requests.admission import ASKED_KEY, registry_of
from ..requests.kv import acts_after_last_block_only
from ..requests.look_alikes import CHAT_ROUTE
from ..requests.request import choose
from ..runners.handshake import check_workers
from . import metrics
from .guard import RefuseMisplacedSteering

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
    """vLLM's request with one more field."""

    steering: Annotated[Any, WithJsonSchema(_SCHEMA)] = Field(
        default=None,
        description='Steering of this request: "NAME", {"profile": "NAME", "alpha": 0.8}, a list of these, or "none".',
    )

    def to_sampling_params(self, *args: Any, **kwargs: Any) -> SamplingParams:
        params = super().to_sampling_params(*args, **kwargs)
        if self.steering is not None:
            params.extra_args = {**(params.extra_args or {}), ASKED_KEY: self.steering}
        return params


router = APIRouter()


@router.post(CHAT_ROUTE, dependencies=[Depends(validate_json_request)])
async def create_steered_chat_completion(request: SteeredChatCompletionRequest, raw_request: Request) -> Response:
    """vLLM's own chat completions; `steering` is checked before anything else happens.

    All of it here: once the prompt is rendered, vLLM takes its pictures for sent (see `admission`).
    """
    try:
        asked = parse(request.steering)
        chosen = choose(asked, _registry(raw_request))
        if chosen and request.use_beam_search:
            raise RequestError("steering is not served with beam search; leave one of the two out", param=ASKED_KEY)
    except RequestError as error:
        raise VLLMValidationError(str(error), parameter=error.param) from error
    response: Response = await vllm_chat.create_chat_completion(request, raw_request)
    if response is not None and response.status_code == 200:
        response.headers.update(_headers(chosen))
        for name in [profile.name for profile, _ in chosen] or [NONE]:
            metrics.count(name)
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
    return {"object": "list", "data": [_card(profile) for profile in (registry or {}).values()]}


@router.get("/v1/steering/profiles/{name}")
async def show_profile(name: str, raw_request: Request) -> dict[str, Any]:
    """One of them."""
    registry = _registry(raw_request) or Registry(())
    try:
        return _card(registry[name])
    except UnknownProfileError as error:
        raise VLLMNotFoundError(str(error)) from error


def _card(profile: Profile) -> dict[str, Any]:
    manifest = profile.manifest
    return {
        "id": profile.name,
        "object": "steering.profile",
        "description": manifest.description,
        "kind": manifest.kind,
        "layers": list(manifest.layers),
        "positions": manifest.positions,
        "alpha": manifest.alpha.model_dump(),
        "kv": "shared" if acts_after_last_block_only(profile) else "keyed",
        "norms": {str(layer): norms.model_dump() for layer, norms in manifest.norms.items()},
        "digest": profile.digest,
    }


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
        app.state.steering = None
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
        metrics.announce(state.steering)
        config = SteeringConfig.of(engine_client.vllm_config)
        if config is not None:
            await check_workers(engine_client, config.digest)


def endpoint_plugin() -> EndpointPlugin:
    """Entry point of `vllm.endpoint_plugins`; vLLM loads it only when `VLLM_PLUGINS` names it."""
    return EndpointPlugin()
