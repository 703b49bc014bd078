"""On /invocations vLLM writes a header over `model`; a profile in it is not lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
from vllm.entrypoints.openai.models.protocol import BaseModelPath

from tests.plugin.test_routes import application

ADAPTER = "X-Amzn-SageMaker-Adapter-Identifier"


class Serving:
    """Where vLLM's application hands the request over. Tells which model it was asked for."""

    async def create_chat_completion(self, request: Any, raw_request: Any) -> ChatCompletionResponse:
        usage: Any = {"prompt_tokens": 0, "total_tokens": 0}
        return ChatCompletionResponse(model=str(request.model), choices=[], usage=usage)


@pytest.fixture(scope="module")
def client(model_folder: Path) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        app = application(model_folder, patch)
        paths = [BaseModelPath("base", "/x")]
        app.state.openai_serving_models = SimpleNamespace(base_model_paths=paths, lora_requests={"adapter": None})
        app.state.openai_serving_chat, app.state.openai_serving_completion = Serving(), None
        yield TestClient(app)


def model_of(client: TestClient, model: str | None, header: str | None = None) -> str:
    body = {"messages": [{"role": "user", "content": "x"}], **({} if model is None else {"model": model})}
    answer = client.post("/invocations", json=body, headers={} if header is None else {ADAPTER: header})
    found = answer.json()
    return str(found["model"] if answer.status_code == 200 else found["error"]["param"])


@pytest.mark.parametrize("model", ["base:polite", "base:polite@0.8", "adapter:polite", "base:no-such-profile"])
def test_a_profile_in_the_model_reaches_the_serving_class(client: TestClient, model: str) -> None:
    assert model_of(client, model) == model


@pytest.mark.parametrize("model", [None, "base", "anything", "any:thing"])
def test_any_other_model_is_what_vllm_makes_of_it(client: TestClient, model: str | None) -> None:
    assert model_of(client, model) == "None"
    assert model_of(client, model, "adapter") == "adapter"


def test_a_profile_in_the_header_reaches_the_serving_class(client: TestClient) -> None:
    assert model_of(client, None, "adapter:polite") == "adapter:polite"


def test_a_header_beside_a_profile_in_the_model_is_refused(client: TestClient) -> None:
    assert model_of(client, "base:polite", "adapter") == "model"  # the field at fault


def test_a_body_of_countless_levels_is_refused(client: TestClient) -> None:
    deep = b'{"model": "base", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = client.post("/invocations", content=deep, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (413, "body")
