"""A profile in the name of the model is the field, for a client that cannot send one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.entrypoints.generate.generative_scoring.serving import GenerativeScoringRequest
from vllm.entrypoints.openai.chat_completion.protocol import BatchChatCompletionRequest, ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.serve.engine.serving import BaseServing
from vllm.entrypoints.serve.tokenize.protocol import TokenizeCompletionRequest
from vllm.entrypoints.speech_to_text.transcription.protocol import TranscriptionRequest
from vllm.lora.request import LoRARequest

from trimtab.plugin.config import SteeringConfig
from trimtab.plugin.http import cards
from trimtab.plugin.http.cards import card
from trimtab.plugin.requests import admission, model_names
from trimtab.vectors import Registry

STEERS = SteeringConfig(profiles="p", digest="digest", rows={1: 4}, slots=3).to_additional_config()
TURNS = [{"role": "user", "content": "x"}]
REQUESTS: dict[Any, dict[str, Any]] = {
    ChatCompletionRequest: {"messages": TURNS},
    BatchChatCompletionRequest: {"messages": [TURNS]},
    CompletionRequest: {"prompt": "x"},
    ResponsesRequest: {"input": "x"},
}


@pytest.fixture
def serving(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> BaseServing:
    """What every serving class of vLLM is: models with names, and an engine that steers."""
    monkeypatch.setattr(admission, "registry_of", lambda config: registry)
    monkeypatch.setattr(cards, "registry_of", lambda config: registry)
    model_names.install()
    cards.install()
    engine: Any = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=8),
        renderer=None,
        input_processor=None,
        vllm_config=SimpleNamespace(additional_config=STEERS),
    )
    paths = [BaseModelPath(name, "/secret/path") for name in ("base", "base:v2", "other")]
    models = OpenAIServingModels(engine, paths)
    models.lora_requests = {name: LoRARequest(name, 1, "/secret/path") for name in ("adapter", "base:taken")}
    return BaseServing(models, engine.model_config)


def check(serving: BaseServing, kind: Any, model: str | None, **more: Any) -> tuple[Any, Any]:
    """The request as vLLM serves it, and vLLM's error."""
    request = kind.model_validate({"model": model, **REQUESTS.get(kind, {}), **more})
    return request, asyncio.run(serving._check_model(request))


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize(
    ("named", "served", "steering"),
    [
        ("base:polite", "base", "polite"),
        ("base:polite@0.8", "base", "polite@0.8"),
        ("base:v2:brief", "base:v2", "brief"),
        ("adapter:polite", "adapter", "polite"),
        ("other:none", "other", "none"),
        ("base", "base", None),
        ("base:v2", "base:v2", None),
        ("base:taken", "base:taken", None),
        (None, None, None),
    ],
)
def test_a_profile_after_the_name_of_a_model_becomes_the_field(
    serving: BaseServing, kind: Any, named: str | None, served: str | None, steering: str | None
) -> None:
    request, error = check(serving, kind, named)
    assert error is None
    assert (request.model, getattr(request, "steering", None)) == (served, steering)


def test_a_version_after_the_name_is_served_where_it_is_the_loaded_one(
    serving: BaseServing, registry: Registry
) -> None:
    digest = registry["polite"].digest[:12]
    request, error = check(serving, ChatCompletionRequest, f"base:polite@sha256:{digest}")
    assert (error, request.steering) == (None, f"polite@sha256:{digest}")
    _, error = check(serving, ChatCompletionRequest, f"base:brief@sha256:{digest}")
    assert (error.error.code, error.error.param) == (400, "model")


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize(
    ("named", "code", "message"),
    [
        ("base:pollite", 404, "did you mean 'polite'"),
        ("base:", 400, "the name is empty"),
        ("base:polite@9", 400, "alpha is 9; allowed is a number from -1 to 2"),
        ("base:polite@loud", 400, "neither a strength nor a version"),
        ("base:polite,brief", 404, "unknown profile"),
    ],
)
def test_what_is_no_profile_is_refused_as_a_wrong_model(
    serving: BaseServing, kind: Any, named: str, code: int, message: str
) -> None:
    request, error = check(serving, kind, named)
    assert (error.error.code, error.error.param) == (code, "model")
    assert message in error.error.message
    assert request.model == named  # and is not served without


def test_another_models_name_is_vllms_to_refuse(serving: BaseServing) -> None:
    _, error = check(serving, ChatCompletionRequest, "someone:polite")
    assert error.error.code == 404
    assert "does not exist" in error.error.message


@pytest.mark.parametrize(
    ("named", "steering"),
    [
        ("base:polite", "polite"),
        ("base:polite@0.5", "polite"),  # its default
        ("base:polite@0.8", {"profile": "polite", "alpha": 0.8}),
        ("base:polite", ["polite"]),
        ("base:none", "none"),
    ],
)
def test_a_field_that_says_the_same_is_served(serving: BaseServing, named: str, steering: Any) -> None:
    request, error = check(serving, ChatCompletionRequest, named, steering=steering)
    assert (error, request.model, request.steering) == (None, "base", steering)


@pytest.mark.parametrize(
    ("named", "steering"),
    [
        ("base:polite", "brief"),
        ("base:polite", "none"),
        ("base:none", "polite"),
        ("base:polite", {"profile": "polite", "alpha": 0.8}),
        ("base:polite", ["polite", "brief"]),
    ],
)
def test_a_field_that_disagrees_is_refused(serving: BaseServing, named: str, steering: Any) -> None:
    _, error = check(serving, ChatCompletionRequest, named, steering=steering)
    assert (error.error.code, error.error.param) == (400, "steering")
    assert "for something else; ask in one of the two" in error.error.message


def test_a_door_that_cannot_steer_refuses_the_name(serving: BaseServing) -> None:
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (GenerativeScoringRequest, {"query": "x", "items": ["y"], "label_token_ids": [1]}),
        (TranscriptionRequest, {"file": None}),
    ]
    for kind, more in kinds:
        error: Any = asyncio.run(serving._check_model(kind.model_construct(model="base:polite", **more)))
        assert (error.error.code, error.error.param) == (400, "model")
        assert "does not serve steering" in error.error.message


def test_what_generates_nothing_takes_the_name_for_the_model(serving: BaseServing) -> None:
    request, error = check(serving, TokenizeCompletionRequest, "base:polite", prompt="x")
    assert (error, request.model) == (None, "base")


def test_a_profile_after_a_name_that_is_not_checked_is_served(
    serving: BaseServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_SKIP_MODEL_NAME_VALIDATION", "1")
    for named, served, steering in (
        ("anything:polite@0.8", "anything", "polite@0.8"),
        ("base:polite", "base", "polite"),
        ("anything:8b", "anything:8b", None),
        ("anything", "anything", None),
    ):
        request, error = check(serving, ChatCompletionRequest, named)
        assert (error, request.model, getattr(request, "steering", None)) == (None, served, steering)


def test_an_engine_that_does_not_steer_leaves_names_alone(serving: BaseServing) -> None:
    serving.models.engine_client.vllm_config.additional_config = {}  # type: ignore[union-attr]
    request, error = check(serving, ChatCompletionRequest, "base:polite")
    assert (request.model, error.error.code) == ("base:polite", 404)


def test_every_profile_has_a_card_among_the_models_and_no_path_in_it(serving: BaseServing, registry: Registry) -> None:
    found = asyncio.run(serving.models.show_available_models()).model_dump()["data"]
    ours = [one for one in found if "steering" in one]
    assert [one["id"] for one in found[:3]] == ["base", "base:v2", "other"]
    assert [one["id"] for one in ours] == [f"base:{name}" for name in registry.names]
    for one, profile in zip(ours, registry.values(), strict=True):
        assert one["parent"] == one["root"] == "base"
        assert one["steering"] == {
            "profile": profile.name,
            "alpha": card(profile)["alpha"]["default"],
            "digest": profile.digest,
        }
        assert "/secret" not in str(one)
        request, error = check(serving, ChatCompletionRequest, one["id"])
        assert (error, request.model, request.steering) == (None, "base", profile.name)
