"""The field is read in vLLM's own request classes: whoever serves them steers, or refuses."""

from __future__ import annotations

from typing import Any

import pytest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.exceptions import VLLMValidationError

from trimtab.plugin.http.doors import SteeredChatCompletionRequest
from trimtab.plugin.requests import fields


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    fields.install()
    fields.install()  # and wraps once


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
