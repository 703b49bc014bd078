"""The HTTP side of a server that steers: routes with the field, answers that say what they got, and discovery.

Leans on vllm/plugins/endpoint_plugins (official, 0.29 to 0.32).
"""

from __future__ import annotations

import functools
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient
from vllm.exceptions import VLLMNotFoundError

from trimtab.vectors import Registry
from trimtab.vectors.errors import UnknownProfileError
from trimtab.vectors.experiments import Plan

from ..config import PLUGIN_NAME, SteeringConfig
from ..control import authority, finished
from ..control.decisions import DecisionLog
from ..control.experiments import expose
from ..control.experiments.expose import Exposures
from ..control.identity import serve_http
from ..requests import decided, front, lost, refused
from ..requests.admission import observers, refusals, registry_of
from ..runners.handshake import check_workers
from . import admin, cards, invocations, metrics, steered, told, versions
from .cards import card, experiment_card
from .guard import RefuseMisplacedSteering
from .identity import KeepIdentity
from .routes import STEERED

__all__ = ["EndpointPlugin", "endpoint_plugin"]

router = APIRouter()


@router.get("/v1/steering/profiles")
async def list_profiles(raw_request: Request) -> dict[str, Any]:
    """The profiles that requests may name."""
    with refusals(counted=False):
        registry = _registry(raw_request)
    return {"object": "list", "data": [card(profile) for profile in (registry or {}).values()]}


@router.get("/v1/steering/profiles/{name}")
async def show_profile(name: str, raw_request: Request) -> dict[str, Any]:
    """One of them."""
    with refusals(counted=False):
        registry = _registry(raw_request) or Registry(())
        try:
            return card(registry[name])
        except UnknownProfileError as error:
            raise VLLMNotFoundError(str(error)) from error


@router.get("/v1/steering/experiments")
async def list_experiments(raw_request: Request) -> dict[str, Any]:
    """The experiments that requests may name."""
    with refusals():
        plan: Plan | None = raw_request.app.state.steering_plan()
    found = {} if plan is None else plan.experiments
    return {"object": "list", "data": [experiment_card(name, one) for name, one in found.items()]}


def _registry(raw_request: Request) -> Registry | None:
    now: Callable[[], Registry | None] = raw_request.app.state.steering
    return now()


def _without_engine() -> None:
    """A server that only renders prompts has no profiles and no experiments."""


_COUNTS: tuple[tuple[list[Any], Callable[..., None]], ...] = (
    (observers, metrics.count),
    (refused.observers, metrics.count_refusal),
    (lost.observers, metrics.count_lost),
    (finished.listeners, metrics.count_finish),
)


class EndpointPlugin:
    """What vLLM asks of an entry point in `vllm.endpoint_plugins`."""

    name = PLUGIN_NAME
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        app.state.steering = app.state.steering_plan = _without_engine
        front.install()
        told.install()
        cards.install()
        invocations.install()
        steered.replace_routes(app)
        app.include_router(router)
        admin.attach(app)
        self._app = app
        serve_http()
        # Added here, they run inside vLLM's authentication.
        app.add_middleware(told.SayWhatWasServed)
        app.add_middleware(RefuseMisplacedSteering, covered=STEERED)
        app.add_middleware(KeepIdentity)

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        if engine_client is None:  # a server that only renders prompts
            return
        steered.check_routes(self._app)
        state.steering = functools.partial(registry_of, engine_client.vllm_config)
        state.steering_plan = functools.partial(authority.plan_of, engine_client.vllm_config)
        metrics.announce(state.steering())
        versions.Versions(engine_client.vllm_config).begin()
        for listeners, count in _COUNTS:
            if count not in listeners:
                listeners.append(count)
        config = SteeringConfig.of(engine_client.vllm_config)
        if config is not None and config.policy:
            log = [DecisionLog(Path(config.state))] if config.state else []
            authority.observers[:] = [metrics.count_decision, *log]
        if config is not None:
            await check_workers(engine_client, config.digest)
        if config is not None and config.exposures:
            exposures = Exposures(Path(config.exposures))
            expose.admitted[:] = [exposures.admitted]
            finished.listeners.append(exposures.finished)
            decided.ended[:] = [exposures.ended]
        admin.start(engine_client, state)


def endpoint_plugin() -> EndpointPlugin:
    """Entry point of `vllm.endpoint_plugins`; vLLM loads it only when `VLLM_PLUGINS` names it."""
    return EndpointPlugin()
