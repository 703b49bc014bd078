"""What a request asks for is resolved once, before anything is scheduled, or the request is refused whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import VLLMError, VLLMValidationError
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest

from trimtab.plugin.requests import admission
from trimtab.plugin.requests.admission import ASKED_KEY, refusals
from trimtab.plugin.requests.decided import once
from trimtab.plugin.requests.kv import WIRE_KEY
from trimtab.plugin.requests.positions import END, pictures
from trimtab.plugin.requests.request import choose, resolve
from trimtab.vectors import ModelIdentity, Profile, Registry, SteeringVector
from trimtab.vectors.asked import Asked
from trimtab.vectors.errors import RequestError


def request_with(extra_args: dict[str, Any] | None, tokens: int = 7, **fields: Any) -> EngineCoreRequest:
    defaults: dict[str, Any] = {
        "request_id": "r",
        "prompt_token_ids": list(range(tokens)),
        "mm_features": None,
        "sampling_params": SamplingParams(extra_args=extra_args),
        "pooling_params": None,
        "arrival_time": 0.0,
        "lora_request": None,
        "cache_salt": None,
        "data_parallel_rank": None,
    }
    return EngineCoreRequest(**{**defaults, **fields})


def admit(request: EngineCoreRequest, registry: Registry | None, **more: Any) -> None:
    """What a server without an access policy does."""
    admission.admit(request, lambda asks: once(asks, lambda: choose(asks.profiles or (), registry)), **more)


def extra_args_of(request: EngineCoreRequest) -> dict[str, Any] | None:
    assert request.sampling_params is not None
    return request.sampling_params.extra_args


def spans_of(request: EngineCoreRequest) -> list[Any]:
    return [part["spans"] for part in (extra_args_of(request) or {})[WIRE_KEY]]


def picture(offset: int, length: int, mask: list[bool] | None = None, modality: str = "image") -> MultiModalFeatureSpec:
    place = PlaceholderRange(offset=offset, length=length, is_embed=None if mask is None else torch.tensor(mask))
    return MultiModalFeatureSpec(data=None, modality=modality, identifier=f"{offset}", mm_position=place)


def test_a_wish_is_replaced_by_what_it_stands_for(registry: Registry) -> None:
    request = request_with({ASKED_KEY: {"profile": "polite", "alpha": 0.25}, "other": 1})
    admit(request, registry)
    wire = resolve(choose([Asked("polite", 0.25)], registry), prompt_length=7).to_wire()
    assert extra_args_of(request) == {"other": 1, WIRE_KEY: wire}


def test_the_prompts_length_counts_embeddings_too(registry: Registry) -> None:
    request = request_with({ASKED_KEY: "polite"}, prompt_token_ids=None, prompt_embeds=torch.zeros(9, 4))
    admit(request, registry)
    assert spans_of(request) == [((8, END),)]


def test_a_list_of_wishes_is_replaced_by_as_many_parts(registry: Registry) -> None:
    request = request_with({ASKED_KEY: ["polite", {"profile": "gender-neutral", "alpha": 2}]})
    admit(request, registry)
    wire = resolve(choose([Asked("gender-neutral", 2), Asked("polite")], registry), prompt_length=7).to_wire()
    assert extra_args_of(request) == {WIRE_KEY: wire}


@pytest.mark.parametrize(
    ("features", "spans"),
    [
        ([], ()),
        ([picture(3, 4)], ((3, 7),)),
        ([picture(9, 2), picture(3, 4)], ((3, 7), (9, 11))),
        ([picture(3, 4), picture(7, 2, modality="video")], ((3, 9),)),
        ([picture(3, 5, [False, True, True, False, True])], ((4, 6), (7, 8))),
        ([picture(3, 2, [True, True]), picture(5, 2, [True, False])], ((3, 6),)),
        ([picture(3, 2, [False, False])], ()),
    ],
)
def test_pictures_fill_the_positions_that_their_features_name(
    features: list[MultiModalFeatureSpec], spans: tuple[tuple[int, int], ...]
) -> None:
    assert pictures(feature.mm_position for feature in features) == spans


def test_image_and_text_positions_are_taken_from_the_requests_own_pictures(model: ModelIdentity) -> None:
    vector = SteeringVector(0, [1.0] * 4)
    registry = Registry([Profile.coarse(name, [vector], model=model, positions=name) for name in ("image", "text")])
    for name, spans in (("image", ((2, 4), (5, 6))), ("text", ((0, 2), (4, 5), (6, 7)))):
        request = request_with({ASKED_KEY: name}, mm_features=[picture(2, 4, [True, True, False, True])])
        admit(request, registry)
        assert spans_of(request) == [spans]
    with pytest.raises(VLLMValidationError, match="this prompt has none; send it with a picture") as caught:
        admit(request_with({ASKED_KEY: "image"}), registry)
    assert caught.value.parameter == "steering"


def test_the_callers_dictionary_is_left_as_it_is(registry: Registry) -> None:
    mine = {ASKED_KEY: "polite", "other": 1}
    for _ in range(2):  # and so serves for a second request
        admit(request_with(mine), registry)
        assert mine == {ASKED_KEY: "polite", "other": 1}


@pytest.mark.parametrize("asked", ["none", None])
def test_none_leaves_no_trace(asked: object, registry: Registry) -> None:
    for given, left in (({ASKED_KEY: asked}, None), ({ASKED_KEY: asked, "other": 1}, {"other": 1})):
        request = request_with(given)
        admit(request, registry)
        assert extra_args_of(request) == left


@pytest.mark.parametrize("extra_args", [None, {}, {"other": 1}])
def test_a_request_that_does_not_ask_is_left_alone(extra_args: dict[str, Any] | None) -> None:
    request = request_with(extra_args)
    admit(request, None)
    assert extra_args_of(request) == extra_args


def test_a_pooling_request_is_left_alone(registry: Registry) -> None:
    request = request_with(None, sampling_params=None, pooling_params=PoolingParams())
    admit(request, registry)
    assert request.sampling_params is None


@pytest.mark.parametrize(
    ("extra_args", "parameter", "message"),
    [
        (
            {WIRE_KEY: [{"alpha": 0}]},
            "steering",
            r"extra_args\['trimtab'\] is reserved; ask with extra_args\['steering'\]",
        ),
        ({WIRE_KEY: None}, "steering", "is reserved"),
        ({WIRE_KEY: [], ASKED_KEY: "polite"}, "steering", "is reserved"),
        ({ASKED_KEY: 3}, "steering", "not int"),
        ({ASKED_KEY: ["polite", "polite"]}, "steering", "names 'polite' twice"),
        ({ASKED_KEY: "pollite"}, "steering.profile", "did you mean 'polite'"),
        (
            {ASKED_KEY: {"profile": "polite", "alpha": 9}},
            "steering.alpha",
            "alpha is 9; allowed is a number from -1 to 2",
        ),
        ({ASKED_KEY: {"profile": "polite", "alhpa": 1}}, "steering.alhpa", "unknown field 'alhpa'"),
    ],
)
def test_a_wrong_wish_is_a_400_that_names_its_field_and_changes_nothing(
    extra_args: dict[str, Any], parameter: str, message: str, registry: Registry
) -> None:
    request, before = request_with(dict(extra_args)), dict(extra_args)
    with pytest.raises(VLLMValidationError, match=message) as caught:
        admit(request, registry)
    assert caught.value.parameter == parameter
    assert extra_args_of(request) == before


def test_a_wish_to_a_server_without_profiles_is_refused() -> None:
    with pytest.raises(VLLMValidationError, match="started without steering profiles"):
        admit(request_with({ASKED_KEY: "polite"}), None)


def test_a_resumable_request_cannot_be_steered(registry: Registry) -> None:
    with pytest.raises(VLLMValidationError, match="not served on resumable"):
        admit(request_with({ASKED_KEY: "polite"}, resumable=True), registry)
    admit(request_with({ASKED_KEY: "none"}, resumable=True), registry)


def test_a_request_without_steering_never_waits_for_the_profiles() -> None:
    assert not admission.mentions_steering(request_with(None))
    assert not admission.mentions_steering(request_with({"other": 1}))
    assert not admission.mentions_steering(request_with(None, sampling_params=None, pooling_params=PoolingParams()))
    for key in (ASKED_KEY, WIRE_KEY):
        assert admission.mentions_steering(request_with({key: None}))


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "BadRequestError"), (403, "Forbidden"), (503, "Service Unavailable")]
)
def test_a_refusal_has_its_own_status_over_http(status: int, kind: str) -> None:
    with pytest.raises(VLLMError) as caught, refusals():
        raise RequestError("the reason", status=status)
    answer = create_error_response(caught.value).error
    assert (answer.code, answer.type) == (status, kind)
    assert answer.message.startswith("the reason")
