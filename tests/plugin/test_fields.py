"""The field is read in vLLM's own request classes: whoever serves them steers, or refuses."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Form
from starlette.testclient import TestClient
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.chat_completion.protocol import BatchChatCompletionRequest, ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.speech_to_text.transcription.protocol import TranscriptionRequest
from vllm.entrypoints.speech_to_text.translation.protocol import TranslationRequest
from vllm.exceptions import VLLMValidationError

from trimtab.plugin.http.routes import BATCH, CHAT, MESSAGES
from trimtab.plugin.http.steered import REQUESTS as STEERED_REQUESTS
from trimtab.plugin.requests import fields


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    fields.install()
    fields.install()  # and wraps once


SteeredChatCompletionRequest = STEERED_REQUESTS[CHAT]


class Wrapped(ChatCompletionRequest):
    """What another tool makes of vLLM's request."""

    tenant: str = "t"


REQUESTS: dict[Any, dict[str, Any]] = {
    Wrapped: {"messages": [{"role": "user", "content": "x"}]},
    ChatCompletionRequest: {"messages": [{"role": "user", "content": "x"}]},
    SteeredChatCompletionRequest: {"messages": [{"role": "user", "content": "x"}]},
    CompletionRequest: {"prompt": "x"},
    ResponsesRequest: {"input": "x"},
}


def params_of(kind: Any, **more: Any) -> Any:
    request = kind.model_validate({"model": "m", **REQUESTS[kind], **more})
    return request.to_sampling_params(16, {})


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize(
    "steering",
    ["polite", {"profile": "polite", "alpha": 0.5}, ["polite", {"profile": "brief", "alpha": 2}], "none", "", [], 0],
)
def test_the_field_reaches_the_sampling_parameters(kind: Any, steering: object) -> None:
    assert params_of(kind, steering=steering, vllm_xargs={"top": 1}).extra_args == {"top": 1, "steering": steering}


@pytest.mark.parametrize("kind", REQUESTS)
def test_without_the_field_nothing_is_added(kind: Any) -> None:
    assert not params_of(kind).extra_args
    assert params_of(kind, user="steering", vllm_xargs={"top": 1}).extra_args == {"top": 1}


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize(
    "more",
    [
        {"steer": "x"},
        {"stearing": "x"},
        {"profile": "x"},
        {"steering": "x", "alpha": 1},
        {"vllm_xargs": {"steering": "x"}},
        {"vllm_xargs": {"trimtab": "x"}},
        {"extra_body": {"steering": "x"}},
        {"metadata": {"steering": "x"}},
        {"extra_body": [{"steering": "x"}]},
    ],
)
def test_what_was_meant_to_be_the_field_is_refused(kind: Any, more: dict[str, Any]) -> None:
    with pytest.raises(VLLMValidationError, match="steering") as caught:
        params_of(kind, **more)
    assert str(caught.value.parameter).partition(".")[0].partition("[")[0] in more


@pytest.mark.parametrize("kind", [ChatCompletionRequest, SteeredChatCompletionRequest, ResponsesRequest])
def test_a_field_of_a_message_is_refused(kind: Any) -> None:
    (name,) = REQUESTS[kind]
    turn = {"role": "user", "content": "x"}
    assert not params_of(kind, **{name: [turn, turn]}).extra_args
    with pytest.raises(VLLMValidationError, match=rf"'steering' is not taken from {name}\[\]; write the top-level"):
        params_of(kind, **{name: [turn, {**turn, "steering": "x"}]})


@pytest.mark.parametrize("kind", [ChatCompletionRequest, CompletionRequest, SteeredChatCompletionRequest])
def test_beam_search_is_refused_with_the_field_and_served_without(kind: Any) -> None:
    for more, refused in (
        ({"steering": "x"}, True),
        ({"steering": 3}, True),
        ({"steering": "none"}, False),
        ({}, False),
    ):
        request = kind.model_validate({"model": "m", **REQUESTS[kind], "use_beam_search": True, **more})
        if refused:
            with pytest.raises(VLLMValidationError) as caught:
                request.to_beam_search_params(16, {})
            assert caught.value.parameter == "steering"
        else:
            request.to_beam_search_params(16, {})


def test_the_callers_own_dictionary_is_left_as_it_is() -> None:
    mine = {"top": 1}
    params_of(ChatCompletionRequest, steering="x", vllm_xargs=mine)
    assert mine == {"top": 1}


def test_a_message_hands_its_field_to_the_chat_completion_that_it_becomes() -> None:
    turns = [{"role": "user", "content": "x"}]
    kind = STEERED_REQUESTS[MESSAGES]
    for steering in ("polite", [{"profile": "polite", "alpha": 0.5}, "brief"], "none"):
        message = kind.model_validate({"model": "m", "max_tokens": 2, "messages": turns, "steering": steering})
        chat = AnthropicServingMessages.to_chat_completion_request(message)
        assert chat.to_sampling_params(16, {}).extra_args == {"steering": steering}
    message = kind.model_validate({"model": "m", "max_tokens": 2, "messages": turns})
    assert not AnthropicServingMessages.to_chat_completion_request(message).to_sampling_params(16, {}).extra_args


def test_each_chat_of_a_batch_has_the_field_of_the_batch() -> None:
    turns = [{"role": "user", "content": "x"}]
    for kind in (STEERED_REQUESTS[BATCH], BatchChatCompletionRequest):
        batch = kind.model_validate({"model": "m", "messages": [turns, turns], "steering": "polite"})
        for messages in batch.messages:
            chat = batch.to_chat_completion_request(messages)
            assert chat.to_sampling_params(16, {}).extra_args == {"steering": "polite"}


@pytest.mark.parametrize("kind", [TranscriptionRequest, TranslationRequest])
@pytest.mark.parametrize("method", ["to_sampling_params", "to_beam_search_params"])
def test_the_field_of_a_form_for_speech_is_refused(kind: Any, method: str) -> None:
    async def parameters(request: Any) -> str:
        try:
            getattr(request, method)(16, {})
        except VLLMValidationError as error:
            return str(error.parameter)
        return "served"

    parameters.__annotations__["request"] = Annotated[kind, Form()]
    app = FastAPI()
    app.post("/")(parameters)
    client = TestClient(app)

    def ask(**fields: str) -> str:
        return str(client.post("/", data={"model": "m", **fields}, files={"file": b"x"}).json())

    assert [ask(), ask(steering="polite"), ask(stearing="polite"), ask(prompt="x", profile="polite")] == [
        "served",
        "steering",
        "stearing",
        "profile",
    ]
