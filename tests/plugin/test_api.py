"""The chat door takes one more field, and discovery shows what may be asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from starlette.testclient import TestClient
from vllm.entrypoints.openai.chat_completion import api_router
from vllm.entrypoints.openai.chat_completion.api_router import router as vllm_chat
from vllm.exceptions import VLLMValidationError
from vllm.plugins.endpoint_plugins.interface import attach_endpoint_plugins

from trimtab.plugin.errors import StartupError
from trimtab.plugin.http.doors import (
    CHAT_ROUTE,
    EndpointPlugin,
    SteeredChatCompletionRequest,
    check_route,
    create_steered_chat_completion,
    router,
)
from trimtab.vectors import Registry

MESSAGES = [{"role": "user", "content": "x"}]


def chat(**fields: Any) -> SteeredChatCompletionRequest:
    return SteeredChatCompletionRequest.model_validate({"model": "m", "messages": MESSAGES, **fields})


@pytest.mark.parametrize(
    "steering", ["polite", {"profile": "polite", "alpha": 0.5}, ["polite", {"profile": "brief", "alpha": 2}], "none"]
)
def test_the_field_reaches_the_sampling_parameters(steering: object) -> None:
    params = chat(steering=steering, vllm_xargs={"top": 1}).to_sampling_params(16, {})
    assert params.extra_args == {"top": 1, "steering": steering}


def test_without_the_field_nothing_is_added() -> None:
    assert not chat().to_sampling_params(16, {}).extra_args


@pytest.fixture
def client(registry: Registry) -> TestClient:
    app = FastAPI()
    EndpointPlugin().attach_router(app)
    app.state.steering = registry
    return TestClient(app)


def attach_as_vllm_does(app: FastAPI) -> None:
    attach_endpoint_plugins(app, ("generate",))


@pytest.mark.parametrize("attach", [EndpointPlugin().attach_router, attach_as_vllm_does])
def test_no_other_chat_route_is_left_beside_ours(
    attach: Callable[[FastAPI], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under vLLM before 0.32 its own would stay in front, and serve steered requests unsteered."""
    monkeypatch.setenv("VLLM_PLUGINS", "trimtab")
    app = FastAPI()
    app.include_router(vllm_chat)
    attach(app)
    (route,) = (route for route in app.routes if getattr(route, "path", None) == CHAT_ROUTE)
    assert getattr(route, "endpoint", None) is create_steered_chat_completion
    check_route(app)


def test_a_chat_route_of_another_plugin_stops_the_start() -> None:
    app = FastAPI()
    app.post(CHAT_ROUTE)(lambda: "unsteered")
    app.include_router(router)
    with pytest.raises(StartupError, match="another plugin serves /v1/chat/completions"):
        check_route(app)


def test_beam_search_is_refused_with_steering(client: TestClient) -> None:
    """At the door: once vLLM has rendered the prompt, it takes its pictures for sent."""
    asked = {"model": "m", "messages": MESSAGES, "use_beam_search": True, "steering": "polite"}
    with pytest.raises(VLLMValidationError, match="not served with beam search"):
        client.post(CHAT_ROUTE, json=asked)


@pytest.mark.parametrize(
    ("steering", "profiles", "alphas"),
    [
        ("polite", ["polite"], ["0.5"]),
        (["polite", {"profile": "brief", "alpha": 2}], ["polite", "brief"], ["0.5", "2.0"]),
        ([{"profile": "brief", "alpha": 0.1}, "polite"], ["brief", "polite"], ["0.1", "0.5"]),
        ("none", ["none"], None),
        (None, ["none"], None),
    ],
)
def test_the_headers_tell_what_was_served_in_the_requests_own_order(
    steering: object,
    profiles: list[str],
    alphas: list[str] | None,
    client: TestClient,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answered(request: object, raw_request: object) -> Response:  # vLLM's own part
        return JSONResponse({})

    monkeypatch.setattr(api_router, "create_chat_completion", answered)
    headers = client.post(CHAT_ROUTE, json={"model": "m", "messages": MESSAGES, "steering": steering}).headers
    assert headers["X-Steering-Profile"].split(", ") == profiles
    if alphas is None:
        assert not {"X-Steering-Alpha", "X-Steering-Digest"} & set(headers)
    else:
        assert headers["X-Steering-Alpha"].split(", ") == alphas
        assert headers["X-Steering-Digest"].split(", ") == [registry[name].digest for name in profiles]


@pytest.mark.parametrize("steering", [["polite", "polite"], ["polite", "none"], [], ["a", "b", "c", "d", "e"]])
def test_a_list_that_cannot_be_served_is_refused_at_the_door(steering: object, client: TestClient) -> None:
    with pytest.raises(VLLMValidationError) as caught:
        client.post(CHAT_ROUTE, json={"model": "m", "messages": MESSAGES, "steering": steering})
    assert caught.value.parameter == "steering"


def test_discovery_lists_every_profile_by_name(client: TestClient, registry: Registry) -> None:
    listed = client.get("/v1/steering/profiles").json()
    assert [card["id"] for card in listed["data"]] == list(registry.names)
    for card in listed["data"]:
        assert client.get(f"/v1/steering/profiles/{card['id']}").json() == card
        assert card["digest"] == registry[card["id"]].digest
    assert {card["id"]: card["kv"] for card in listed["data"]} == {
        "brief": "shared",
        "gender-neutral": "keyed",
        "polite": "keyed",
    }
    assert listed["data"][2]["alpha"] == {"default": 0.5, "min": -1.0, "max": 2.0}


def test_discovery_without_profiles_is_an_empty_list(client: TestClient) -> None:
    client.app.state.steering = None  # type: ignore[attr-defined]
    assert client.get("/v1/steering/profiles").json() == {"object": "list", "data": []}


def test_the_field_is_in_the_openapi_document(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schema = document["components"]["schemas"]["SteeredChatCompletionRequest"]["properties"]["steering"]
    assert [form.get("type") for form in schema["anyOf"]] == ["string", "object", "array", "null"]
