"""`POST /v1/steering/profiles/{stage,activate,unload,disable,enable}`: what an operator may change while a server runs.

The routes exist only where the server was started with an admin key. They name profiles of the registry folder and
never a path. `GET /v1/steering/ready` says whether this server serves what it is to serve.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from trimtab.vectors import Profile
from trimtab.vectors.errors import RequestError, TrimtabError

from ..config import SteeringConfig, file_digest, identity_of
from ..control import authority
from ..control.desired import Desired
from ..control.experiments.fits import faults, misnamed
from ..control.experiments.held import plan_in_force, unit_key
from ..control.generation import Generation
from ..control.keys import AdminKeys
from ..control.policy.held import policy_in_force, unmet
from ..control.refresh import Refresh
from ..control.rollout import Rollout
from ..control.served import served
from ..control.sources import Mirror
from ..control.state import State
from ..runners.staging import HOLDS, STAGE

__all__ = ["KEY_HEADER", "attach", "rollout_of", "start"]

KEY_HEADER = "X-Steering-Admin-Key"

_Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
_Digest = Annotated[str, StringConstraints(pattern="^sha256:[0-9a-f]{12,64}$")]


class Change(BaseModel):
    """The body of a change. name: of a profile in the registry folder."""

    model_config = ConfigDict(extra="forbid")

    name: _Name


class DigestChange(Change):
    """digest: of the version that is meant, in full or by its first 12 or more digits."""

    digest: _Digest | None = None


class DisableChange(Change):
    """reason: what a client that names the profile is told."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


admin = APIRouter()
ready = APIRouter()

Key = Annotated[str | None, Header(alias=KEY_HEADER)]


@admin.post("/v1/steering/profiles/stage")
async def stage(change: DigestChange, request: Request, key: Key = None) -> JSONResponse:
    """Load the version that lies in the folder beside the active one."""

    async def pull_and_stage(by: Rollout, who: str) -> Generation:
        if problems := await by.pull(change.name):
            raise RequestError("; ".join(problems), param="name", status=409)
        return await by.stage(change.name, who, _hex(change.digest) or "")

    return await _change(request, key, change, pull_and_stage)


@admin.post("/v1/steering/profiles/activate")
async def activate(change: DigestChange, request: Request, key: Key = None) -> JSONResponse:
    """Let the profile's name mean its other resident version; the same again goes back."""
    return await _change(request, key, change, lambda by, who: by.activate(change.name, who, _hex(change.digest)))


@admin.post("/v1/steering/profiles/unload")
async def unload(change: Change, request: Request, key: Key = None) -> JSONResponse:
    """Take the profile out."""
    return await _change(request, key, change, lambda by, who: by.unload(change.name, who))


@admin.post("/v1/steering/profiles/disable")
async def disable(change: DisableChange, request: Request, key: Key = None) -> JSONResponse:
    """Answer requests that name the profile with a 503 and the reason, at once."""
    return await _change(request, key, change, lambda by, who: by.disable(change.name, change.reason, who))


@admin.post("/v1/steering/profiles/enable")
async def enable(change: Change, request: Request, key: Key = None) -> JSONResponse:
    """End that."""
    return await _change(request, key, change, lambda by, who: by.enable(change.name, who))


@ready.get("/v1/steering/ready")
async def is_ready(request: Request) -> JSONResponse:
    """200 only where the engine lives, all workers hold what is served, and that is what is wanted."""
    state = request.app.state
    found: dict[str, Any] = {"ready": False, "counter": None, "digest": None, "profiles": {}, "reasons": []}
    found |= {"experiments": None, "unit_key": None}
    try:
        generation = await _checked(state, found["reasons"])
        found |= {"counter": generation.counter, "digest": generation.digest, "policy": generation.policy}
        if (plan := authority.plan_of(state.engine_client.vllm_config)) is not None:
            found |= {"experiments": plan.digest, "unit_key": unit_key().fingerprint}
        found["profiles"] = _shown(generation)
    except (TrimtabError, RequestError) as error:
        found["reasons"].append(str(error))
    except Exception as error:  # a dead engine raises whatever it died of
        found["reasons"].append(f"the engine does not answer ({type(error).__name__})")
    found["ready"] = not found["reasons"]
    return JSONResponse(found, 200 if found["ready"] else 503)


async def _checked(state: Any, reasons: list[str]) -> Generation:
    engine = state.engine_client
    await engine.check_health()
    config = SteeringConfig.of(engine.vllm_config)
    if config is None or not config.state:
        now = served(engine.vllm_config)
        return Generation.first(() if now is None else now.registry.values())
    folder = State(Path(config.state))
    generation = folder.read()
    now = served(engine.vllm_config)
    policy = None if now is None else policy_in_force(config, now.policy)
    if now is not None and policy is not None:
        reasons += unmet(policy, now.registry)
        if config.refresh and file_digest(Path(config.policy)) != now.policy:
            reasons.append("the file of the access policy is not the one in force")
    plan = None if now is None else plan_in_force(config, now.experiments)
    if now is not None and plan is not None:
        reasons += [*faults(plan, now.registry, policy), *(misnamed(policy, plan) if policy is not None else ())]
        if config.refresh and file_digest(Path(config.experiments)) != now.experiments:
            reasons.append("the file of the plan of experiments is not the one in force")
    if folder.draining.exists():
        reasons.append("the server is about to end")
    if config.desired:
        reasons += Desired.read(Path(config.desired)).unmet(generation)
    # Once per generation: workers lose nothing that a generation names.
    if getattr(state, "steering_held", None) != generation.counter:
        await engine.collective_rpc(HOLDS, args=(sorted(generation.resident),))
        state.steering_held = generation.counter
    return generation


async def _change(
    request: Request, key: str | None, change: Change, make: Callable[[Rollout, str], Awaitable[Generation]]
) -> JSONResponse:
    who = request.app.state.steering_keys.who(key or "")
    if who is None:
        return _refusal(401, f"{KEY_HEADER} holds no valid admin key", KEY_HEADER)
    try:
        generation = await make(request.app.state.steering_rollout, who)
        served(request.app.state.engine_client.vllm_config)  # this process sees the change, and shows it on /metrics
    except RequestError as error:
        return _refusal(error.status, str(error), error.param)
    except TrimtabError as error:
        return _refusal(503, str(error), "name")
    profiles = _shown(generation)
    return JSONResponse(
        {"name": change.name, "counter": generation.counter, "digest": generation.digest}
        | {"profile": profiles.get(change.name)}
    )


def _shown(generation: Generation) -> Mapping[str, Any]:
    return {
        name: {
            "active": None if one.active is None else one.active.digest,
            "other": None if one.other is None else one.other.digest,
            "disabled": generation.disabled.get(name),
        }
        for name, one in generation.profiles.items()
    }


def _refusal(status: int, message: str, param: str) -> JSONResponse:
    kinds = {401: "AuthenticationError", 404: "NotFoundError", 409: "ConflictError", 503: "ServiceUnavailableError"}
    problem = {"message": message, "type": kinds.get(status, "BadRequestError"), "param": param, "code": status}
    return JSONResponse({"error": problem}, status)


def _hex(digest: str | None) -> str | None:
    return None if digest is None else digest.removeprefix("sha256:")


def attach(app: FastAPI) -> None:
    """Add the routes to an application; those that change something only where there is a key."""
    app.state.steering_keys = AdminKeys.of_environment()
    app.include_router(ready)
    if app.state.steering_keys:
        app.include_router(admin)


def rollout_of(engine_client: Any) -> Rollout | None:
    """What changes the server of an engine; None where nothing can be changed."""
    config = SteeringConfig.of(engine_client.vllm_config)
    if config is None or not config.state:
        return None

    async def stage(name: str, content: str, keep: list[str]) -> Any:
        return await engine_client.collective_rpc(STAGE, args=(name, content, keep))

    profiles, model = Path(config.profiles), identity_of(engine_client.vllm_config)
    mirror = Mirror(config.source, profiles) if config.source else None
    return Rollout(State(Path(config.state)), profiles, model, stage, mirror)


def start(engine_client: Any, state: Any) -> None:
    """Begin what goes on beside requests. In the event loop of the server, before it listens."""
    state.steering_rollout = rollout_of(engine_client)
    config = SteeringConfig.of(engine_client.vllm_config)
    if state.steering_rollout is not None and config is not None and config.refresh:
        desired = Path(config.desired) if config.desired else None
        policy = Path(config.policy) if config.policy else None
        plan = Path(config.experiments) if config.experiments else None

        def resident() -> Mapping[str, Profile]:
            now = served(engine_client.vllm_config)
            return {} if now is None else now.staged

        refresh = Refresh(state.steering_rollout, config.refresh, desired, policy, resident, plan)
        state.steering_refresh = asyncio.create_task(refresh.run())  # held, or it would be collected
