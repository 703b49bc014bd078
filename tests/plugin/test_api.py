"""The doors take one more field, and discovery shows what may be asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from vllm.entrypoints.anthropic import api_router as messages
from vllm.entrypoints.openai.chat_completion import api_router as chat
from vllm.entrypoints.openai.completion import api_router as completions
from vllm.entrypoints.openai.responses import api_router as responses
from vllm.plugins.endpoint_plugins.interface import attach_endpoint_plugins

from trimtab.plugin.asking import SWITCH
from trimtab.plugin.errors import StartupError
from trimtab.plugin.http.cards import card
from trimtab.plugin.http.doors import EndpointPlugin
from trimtab.plugin.http.steered import REQUESTS, check_routes, replace_routes
from trimtab.vectors import Registry
from trimtab.vectors.dose import largest_dose, said
from trimtab.vectors.manifest import Provenance


@pytest.fixture
def client(registry: Registry) -> TestClient:
    app = FastAPI()
    EndpointPlugin().attach_router(app)
    app.state.steering = lambda: registry
    return TestClient(app)


def attach_as_vllm_does(app: FastAPI) -> None:
    attach_endpoint_plugins(app, ("generate",))


@pytest.mark.parametrize("attach", [EndpointPlugin().attach_router, attach_as_vllm_does])
def test_no_route_of_vllms_is_left_beside_ours(
    attach: Callable[[FastAPI], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under vLLM before 0.32 its own would stay in front, and drop the field."""
    monkeypatch.setenv("VLLM_PLUGINS", "trimtab")
    monkeypatch.setenv(SWITCH, "1")
    app = FastAPI()
    for router in (chat.router, completions.router, messages.router, responses.router):
        app.include_router(router)
    attach(app)
    for path in REQUESTS:
        (route,) = (route for route in app.routes if getattr(route, "path", None) == path)
        assert getattr(route, "endpoint").__module__ == "trimtab.plugin.http.steered"  # noqa: B009
    check_routes(app)


@pytest.mark.parametrize("path", REQUESTS)
def test_a_route_of_another_plugin_stops_the_start(path: str) -> None:
    app = FastAPI()
    app.post(path)(lambda: "unsteered")
    replaced = list(app.routes)
    replace_routes(app)
    check_routes(app)
    app.router.routes[:] = [*replaced, *app.routes]
    with pytest.raises(StartupError, match=f"another plugin serves {path},"):
        check_routes(app)


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
    client.app.state.steering = lambda: None  # type: ignore[attr-defined]
    assert client.get("/v1/steering/profiles").json() == {"object": "list", "data": []}


@pytest.mark.parametrize("path", REQUESTS)
def test_the_openapi_document_holds_what_vllms_does_and_the_field(client: TestClient, path: str) -> None:
    document = client.get("/openapi.json").json()
    app = FastAPI()
    for router in (chat.router, completions.router, messages.router, responses.router):
        app.include_router(router)
    ours, theirs = (found["paths"][path]["post"] for found in (document, app.openapi()))
    assert ours["responses"] == theirs["responses"]
    assert ours["summary"] == theirs["summary"]
    (kind,) = (theirs["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2],)
    body = ours["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": f"#/components/schemas/Steered{kind}"}
    fields = document["components"]["schemas"][f"Steered{kind}"]["properties"]
    assert fields.keys() == {*app.openapi()["components"]["schemas"][kind]["properties"], "steering"}
    assert [form.get("type") for form in fields["steering"]["anyOf"]] == [
        *("string", "object", "array", "object", "object", "null")
    ]
