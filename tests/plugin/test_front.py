"""What admission would refuse is refused when a rendered prompt comes to the engine, not when its answer is read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.serve.tokenize.protocol import TokenizeChatRequest
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.inputs import PlaceholderRange
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from trimtab.plugin.config import SteeringConfig
from trimtab.plugin.requests import admission, decided, front
from trimtab.plugin.requests.kv import WIRE_KEY
from trimtab.vectors import ModelIdentity, Profile, Registry, SteeringVector
from trimtab.vectors.manifest import Positions

STEERS = SteeringConfig(profiles="p", digest="digest", rows={1: 4}, slots=3).to_additional_config()
TURNS = [{"role": "user", "content": "x"}]
REQUESTS: dict[Any, dict[str, Any]] = {
    ChatCompletionRequest: {"messages": TURNS},
    CompletionRequest: {"prompt": "x"},
    ResponsesRequest: {"input": "x"},
}


class Cache:
    """Tells whether it was emptied."""

    emptied = False

    def clear_cache(self) -> None:
        self.emptied = True


@pytest.fixture
def engine(model: ModelIdentity, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What of an AsyncLLM is read before its own part begins."""
    vectors = [SteeringVector(0, [1.0] * 4)]
    kinds: tuple[Positions, ...] = ("image", "prompt", "text")
    loud = Profile.coarse("loud", [SteeringVector(0, [6e4] * 4)], model=model)
    registry = Registry([loud, *(Profile.coarse(at, vectors, model=model, positions=at) for at in kinds)])
    monkeypatch.setattr(admission, "registry_of", lambda config: registry)
    front.install()
    front.install()  # and wraps once
    config = SimpleNamespace(additional_config={}, model_config=SimpleNamespace(dtype=torch.float16))
    return SimpleNamespace(vllm_config=config, renderer=SimpleNamespace(mm_processor_cache=Cache()))


class Rendering(Exception):
    """vLLM began to render."""


class Untouched:
    """Has nothing but a configuration, and tells of anything else that is asked of it."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def __getattr__(self, name: str) -> Any:
        raise Rendering


@pytest.fixture
def online(engine: Any) -> OnlineRenderer:
    """What renders for the serving classes of an engine that steers."""

    online = object.__new__(OnlineRenderer)
    config = SimpleNamespace(additional_config=STEERS, model_config=engine.vllm_config.model_config)
    online.renderer = cast(Any, Untouched(config))
    online.model_config = cast(Any, Untouched(None))
    online.trust_request_mm_kwargs = False
    return online


def render(online: Any, kind: Any, **more: Any) -> None:
    request = kind.model_validate({"model": "m", **REQUESTS.get(kind, {"messages": TURNS}), **more})
    if kind is CompletionRequest:
        asyncio.run(online.preprocess_completion(request, request.prompt, None))
    else:
        asyncio.run(online.preprocess_chat(request, [], None, "auto", None))


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"steering": "imag"}, "steering.profile"),
        ({"steering": 7}, "steering"),
        ({"steering": {"profile": "image", "alpha": 99}}, "steering.alpha"),
        ({"steering": {"profile": "loud", "alpha": 1.99}}, "steering.alpha"),  # in its range, and too much in float16
        ({"stearing": "image"}, "stearing"),
        ({"vllm_xargs": {"steering": "image"}}, "vllm_xargs.steering"),
        ({"steering": "image", "use_beam_search": True}, "steering"),
    ],
)
def test_what_no_prompt_could_mend_is_refused_before_it_is_rendered(
    online: Any, kind: Any, more: dict[str, Any], param: str
) -> None:
    if kind is ResponsesRequest and "use_beam_search" in more:
        pytest.skip("it has no beam search")
    with pytest.raises(VLLMValidationError) as caught:
        render(online, kind, **more)
    assert caught.value.parameter == param
    online.renderer.config.additional_config = {"other": 1}
    with pytest.raises(Rendering):  # an engine that did not ask
        render(online, kind, **more)


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize(
    "more", [{}, {"steering": "none", "use_beam_search": True}, {"steering": "image"}, {"use_beam_search": True}]
)
def test_what_can_be_served_is_rendered(online: Any, kind: Any, more: dict[str, Any]) -> None:
    with pytest.raises(Rendering):
        render(online, kind, **more)


def test_what_generates_nothing_is_rendered(online: Any) -> None:
    with pytest.raises(Rendering):
        render(online, TokenizeChatRequest, steering="imag")


def ask(engine: Any, steering: object, prompt: Any) -> Any:
    return AsyncLLM.generate(engine, prompt, SamplingParams(extra_args={"steering": steering}), "r")


def tokens(count: int) -> Any:
    return {"type": "token", "prompt_token_ids": list(range(count))}


def with_picture(count: int, offset: int, length: int) -> dict[str, Any]:
    places = {"image": [PlaceholderRange(offset=offset, length=length)]}
    return {**tokens(count), "type": "multimodal", "mm_placeholders": places, "mm_hashes": {"image": ["h"]}}


@pytest.mark.parametrize(
    ("steering", "prompt", "message"),
    [
        ("image", tokens(5), "send it with a picture"),
        ("prompt", tokens(1), "send a longer prompt"),
        ("text", with_picture(4, 0, 4), "send a longer prompt"),
        ("prompt", {"type": "embeds", "prompt_embeds": torch.zeros(1, 4)}, "send a longer prompt"),
        ("imag", tokens(5), "did you mean 'image'"),
        (7, tokens(5), "not int"),
        ({"profile": "loud", "alpha": 2}, with_picture(5, 1, 2), "may add"),
    ],
)
def test_a_refusal_comes_before_the_first_output_is_asked_for(
    engine: Any, steering: object, prompt: Any, message: str
) -> None:
    with pytest.raises(VLLMValidationError, match=message):
        ask(engine, steering, prompt)
    assert engine.renderer.mm_processor_cache.emptied is ("mm_hashes" in prompt)


@pytest.mark.parametrize(
    ("steering", "prompt"),
    [
        ("image", with_picture(5, 1, 2)),
        ("text", with_picture(5, 1, 2)),
        ("prompt", tokens(2)),
        ("none", tokens(1)),
        ("image", "a prompt that is not rendered yet"),
        ("image", {"prompt": "one that is not rendered either"}),
    ],
)
def test_what_can_be_served_goes_on_to_vllm(engine: Any, steering: object, prompt: Any) -> None:
    answer = ask(engine, steering, prompt)
    assert hasattr(answer, "__anext__")  # vLLM's generator, which has not begun
    assert not engine.renderer.mm_processor_cache.emptied


def test_the_resolved_form_is_not_taken_from_a_caller(engine: Any) -> None:
    with pytest.raises(VLLMValidationError, match="is reserved"):
        AsyncLLM.generate(engine, tokens(1), SamplingParams(extra_args={WIRE_KEY: []}), "r")


def test_a_request_that_mentions_nothing_is_not_looked_at_by_an_engine_that_did_not_ask(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "check_rendered", None)
    assert hasattr(AsyncLLM.generate(engine, tokens(1), SamplingParams(), "r"), "__anext__")


def test_arguments_may_be_named_as_vllm_names_them(engine: Any) -> None:
    plain = AsyncLLM.generate(engine, prompt=tokens(1), sampling_params=SamplingParams(), request_id="r")
    assert hasattr(plain, "__anext__")
    image = SamplingParams(extra_args={"steering": "image"})
    with pytest.raises(VLLMValidationError, match="send it with a picture"):
        AsyncLLM.generate(engine, request_id="r", sampling_params=image, prompt=tokens(5))


@pytest.mark.parametrize("asked", [None, "text"])
def test_what_is_served_is_decided_before_the_answer_begins(engine: Any, asked: str | None) -> None:
    engine.vllm_config.additional_config = STEERS
    params = SamplingParams(extra_args=None if asked is None else {"steering": asked})
    with decided.deciding() as record:
        AsyncLLM.generate(engine, tokens(5), params, "r")
        assert [profile.name for profile, _ in record.chosen or ()] == ([] if asked is None else [asked])
        assert record.chosen is not None


def test_a_response_is_refused_before_its_stream_begins(engine: Any) -> None:
    engine.vllm_config.additional_config = STEERS
    serving: Any = SimpleNamespace(engine_client=engine)

    def turns(steering: str, prompt: Any) -> Any:
        params = SamplingParams(extra_args={"steering": steering})
        through: Any = OpenAIServingResponses._generate_with_builtin_tools
        return through(serving, request_id="r", engine_input=prompt, sampling_params=params, context=None)

    with decided.deciding() as record:
        assert hasattr(turns("text", tokens(5)), "__anext__")
        assert record.chosen is not None
    with pytest.raises(VLLMValidationError, match="send it with a picture"):
        turns("image", tokens(5))
