"""The chat door takes one more field, and discovery shows what may be asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from starlette.testclient import TestClient
from vllm.entrypoints.openai.chat_completion import api_router
from vllm.entrypoints.openai.chat_completion.api_router import router as vllm_chat
from vllm.exceptions import VLLMValidationError
from vllm.plugins.endpoint_plugins.interface import attach_endpoint_plugins

from tests.chat_utils import CHAT_UTILS
from trimtab.plugin.asking import SWITCH
from trimtab.plugin.errors import StartupError
from trimtab.plugin.http.cards import card
from trimtab.plugin.http.doors import (
    CHAT_ROUTE,
    EndpointPlugin,
    check_route,
    create_steered_chat_completion,
    router,
)
from trimtab.plugin.http.pictures import has_pictures
from trimtab.vectors import ModelIdentity, Profile, Registry, SteeringVector
from trimtab.vectors.dose import largest_dose, said
from trimtab.vectors.manifest import Provenance

MESSAGES = [{"role": "user", "content": "x"}]


@pytest.fixture
def client(registry: Registry) -> TestClient:
    app = FastAPI()
    EndpointPlugin().attach_router(app)
    app.state.steering = registry
    return TestClient(app)


@pytest.fixture
def refused(client: TestClient) -> Callable[..., VLLMValidationError]:
    """What a chat completion is refused with, before vLLM's own part begins."""

    def ask(**fields: Any) -> VLLMValidationError:
        with pytest.raises(VLLMValidationError) as caught:
            client.post(CHAT_ROUTE, json={"model": "m", "messages": MESSAGES, **fields})
        return caught.value

    return ask


def attach_as_vllm_does(app: FastAPI) -> None:
    attach_endpoint_plugins(app, ("generate",))


@pytest.mark.parametrize("attach", [EndpointPlugin().attach_router, attach_as_vllm_does])
def test_no_other_chat_route_is_left_beside_ours(
    attach: Callable[[FastAPI], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under vLLM before 0.32 its own would stay in front, and serve steered requests unsteered."""
    monkeypatch.setenv("VLLM_PLUGINS", "trimtab")
    monkeypatch.setenv(SWITCH, "1")
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


def test_a_profile_for_pictures_is_refused_at_the_door_without_one(
    client: TestClient, model: ModelIdentity, refused: Callable[..., VLLMValidationError]
) -> None:
    """Also of a stream, whose status line would be out before admission."""
    vectors = [SteeringVector(0, [1.0] * 4)]
    client.app.state.steering = Registry(  # type: ignore[attr-defined]
        [Profile.coarse("looks", vectors, model=model, positions="image")]
    )
    for stream in (False, True):
        assert "send it with a picture" in str(refused(steering="looks", stream=stream))


def test_a_dose_that_the_dtype_cannot_bear_is_refused_at_the_door(
    client: TestClient, refused: Callable[..., VLLMValidationError]
) -> None:
    client.app.state.steering_most = 1.0  # type: ignore[attr-defined]
    assert "may add" in str(refused(steering=["polite", "gender-neutral"]))


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a picture of an image_url", False),
        ([{"type": "text", "text": "image_url"}], False),
        ([{"type": "text", "text": "x"}, PICTURE], True),
        ([{"image_url": "https://x"}], True),
        ([{"type": "input_image", "image_url": "x"}], True),
        ([{"type": "video_url", "video_url": {"url": "x"}}], True),
        ([{"type": "image_embeds", "image_embeds": "x"}], True),
        (None, False),
    ],
)
def test_the_parts_of_a_message_tell_whether_there_is_a_picture(content: Any, found: bool) -> None:
    assert has_pictures([{"role": "system", "content": "x"}, {"role": "user", "content": content}]) is found


def test_every_part_of_vllms_for_pictures_and_videos_is_known() -> None:
    for name in CHAT_UTILS.MM_PARSER_MAP:
        if name.startswith(("image", "video", "input_image")):
            assert has_pictures([{"content": [{"type": name}]}])
    assert not any(has_pictures([{"content": [{"type": name}]}]) for name in CHAT_UTILS.MM_PARSER_MAP if "text" in name)


def test_discovery_lists_every_profile_by_name(client: TestClient, registry: Registry) -> None:
    listed = client.get("/v1/steering/profiles").json()
    assert [card["id"] for card in listed["data"]] == list(registry.names)
    for one in listed["data"]:
        assert client.get(f"/v1/steering/profiles/{one['id']}").json() == one
        assert one["digest"] == registry[one["id"]].digest
    assert {one["id"]: one["kv"] for one in listed["data"]} == {
        "brief": "shared",
        "gender-neutral": "keyed",
        "polite": "keyed",
    }
    assert listed["data"][2]["alpha"] == {"default": 0.5, "min": -1.0, "max": 2.0}


def test_a_card_says_with_which_prompt_a_profile_was_made_where_that_is_known(registry: Registry) -> None:
    def said(rule: str | None = None, prompt: str | None = None) -> tuple[object, object]:
        provenance = Provenance(rule=rule, prompt=prompt)
        manifest = registry["polite"].manifest.model_copy(update={"provenance": provenance})
        told = card(replace(registry["polite"], manifest=manifest))
        return told["rule"], told["prompt"]

    assert said() == (None, None)
    assert said(rule="last-prompt") == ("last-prompt", "{question}")
    assert said(rule="last-prompt", prompt="Sadly: {question}") == ("last-prompt", "Sadly: {question}")


def test_a_card_says_how_large_the_dose_is_and_what_it_will_touch(registry: Registry) -> None:
    fine = registry["gender-neutral"]
    manifest = fine.manifest.model_copy(update={"touched": {1: 0.25}, "unmeant": {1: 0.0}})
    told = card(replace(fine, manifest=manifest))
    assert (told["touched"], told["unmeant"]) == ({"1": 0.25}, {"1": 0.0})
    assert told["dose"] == said(largest_dose(fine))
    assert (card(fine)["touched"], card(registry["polite"])["unmeant"]) == (None, None)


def test_discovery_without_profiles_is_an_empty_list(client: TestClient) -> None:
    client.app.state.steering = None  # type: ignore[attr-defined]
    assert client.get("/v1/steering/profiles").json() == {"object": "list", "data": []}


def test_the_openapi_document_holds_what_vllms_does_and_the_field(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    app = FastAPI()
    app.include_router(vllm_chat)
    ours, theirs = (found["paths"][CHAT_ROUTE]["post"] for found in (document, app.openapi()))
    assert ours["responses"] == theirs["responses"]
    assert {"200", "400", "404", "500"} <= set(ours["responses"])
    body = ours["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/SteeredChatCompletionRequest"}
    schema = document["components"]["schemas"]["SteeredChatCompletionRequest"]["properties"]["steering"]
    assert [form.get("type") for form in schema["anyOf"]] == ["string", "object", "array", "null"]
