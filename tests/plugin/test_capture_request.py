"""What a request wants captured is resolved once, before anything is scheduled, or the request is refused whole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest

from tests.plugin.test_admission import extra_args_of, request_with
from trimtab.plugin.capture.request import ASKED_KEY, KINDS, WIRE_KEY, CaptureConfig, admit

CAPTURING: Any = SimpleNamespace(additional_config=CaptureConfig((1,)).to_additional_config())


def asking(kind: str, **fields: Any) -> EngineCoreRequest:
    return request_with({ASKED_KEY: {"positions": kind}, "other": 1}, **fields)


def picture(offset: int, length: int, is_embed: list[bool] | None = None) -> Any:
    mask = None if is_embed is None else torch.tensor(is_embed)
    return SimpleNamespace(mm_position=SimpleNamespace(offset=offset, length=length, is_embed=mask))


def test_a_wish_is_replaced_by_spans_and_the_callers_dictionary_is_left_as_it_is() -> None:
    mine = {ASKED_KEY: {"positions": "prompt"}, "other": 1}
    request = request_with(mine)
    admit(request, CAPTURING)
    assert extra_args_of(request) == {"other": 1, WIRE_KEY: {"key": "r", "spans": ((0, 6),)}}
    assert mine == {ASKED_KEY: {"positions": "prompt"}, "other": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_only_rows_that_a_cache_could_hide_keep_a_request_from_reading_it(kind: str) -> None:
    request = asking(kind, mm_features=[picture(1, 2)])
    admit(request, CAPTURING)
    assert request.sampling_params is not None
    assert request.sampling_params.skip_reading_prefix_cache is (kind not in ("answer", "last_prompt"))


def test_pictures_are_where_their_placeholders_are_without_the_marks_between_them() -> None:
    features = [picture(12, 2), picture(2, 5, [True, True, False, True, False]), picture(14, 1)]
    image, text = (asking(kind, tokens=20, mm_features=features) for kind in ("image", "text"))
    for request, spans in ((image, ((2, 4), (5, 6), (12, 15))), (text, ((0, 2), (4, 5), (6, 12), (15, 20)))):
        admit(request, CAPTURING)
        assert (extra_args_of(request) or {})[WIRE_KEY]["spans"] == spans


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resumable": True}, "resumable"),
        ({"prompt_token_ids": None, "prompt_embeds": torch.zeros(9, 4)}, "embeddings"),
        ({"sampling_params": SamplingParams(n=2, extra_args={ASKED_KEY: {"positions": "all"}})}, "n at 1"),
    ],
)
def test_requests_whose_rows_would_not_be_told_apart_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(VLLMValidationError, match=message):
        admit(asking("all", **fields), CAPTURING)


def test_an_engine_that_was_not_started_for_capture_refuses_it() -> None:
    with pytest.raises(VLLMValidationError, match="not started for capture"):
        admit(asking("all"), SimpleNamespace(additional_config={}))  # type: ignore[arg-type]
    admit(request_with({"other": 1}), SimpleNamespace(additional_config={}))  # type: ignore[arg-type]
