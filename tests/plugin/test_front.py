"""What admission would refuse is refused when a rendered prompt comes to the engine, not when its answer is read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.inputs import PlaceholderRange
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from trimtab.plugin.requests import admission, front
from trimtab.vectors import ModelIdentity, Profile, Registry, SteeringVector
from trimtab.vectors.manifest import Positions


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
    registry = Registry([Profile.coarse(at, vectors, model=model, positions=at) for at in kinds])
    monkeypatch.setattr(admission, "registry_of", lambda config: registry)
    front.install()
    front.install()  # and wraps once
    config = SimpleNamespace(model_config=SimpleNamespace(dtype=torch.float16))
    return SimpleNamespace(vllm_config=config, renderer=SimpleNamespace(mm_processor_cache=Cache()))


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
    ],
)
def test_what_can_be_served_goes_on_to_vllm(engine: Any, steering: object, prompt: Any) -> None:
    answer = ask(engine, steering, prompt)
    assert hasattr(answer, "__anext__")  # vLLM's generator, which has not begun
    assert not engine.renderer.mm_processor_cache.emptied


def test_a_request_that_mentions_nothing_is_not_looked_at(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "check_rendered", None)
    assert hasattr(AsyncLLM.generate(engine, tokens(1), SamplingParams(), "r"), "__anext__")


def test_arguments_may_be_named_as_vllm_names_them(engine: Any) -> None:
    plain = AsyncLLM.generate(engine, prompt=tokens(1), sampling_params=SamplingParams(), request_id="r")
    assert hasattr(plain, "__anext__")
    image = SamplingParams(extra_args={"steering": "image"})
    with pytest.raises(VLLMValidationError, match="send it with a picture"):
        AsyncLLM.generate(engine, request_id="r", sampling_params=image, prompt=tokens(5))
