"""Every route of vLLM's own application has a row that says what becomes of `steering` there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

from trimtab.plugin.asking import SWITCH
from trimtab.plugin.http.routes import ROUTES, STEERED, Serves

# What adds routes: options, environment variables, and tasks of the model.
SERVERS: dict[str, dict[str, Any]] = {
    "default": {},
    "scale out": {"options": ["--enable-scale-out"]},
    "tokens only": {"options": ["--tokens-only"]},
    "tokenizer": {"options": ["--enable-tokenizer-info-endpoint"]},
    "profiler": {"options": ['--profiler-config={"profiler": "cuda"}']},
    "faults": {"options": ["--enable-fault-tolerance"]},
    "development": {
        "variables": ["VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_ENABLE_COHERE_API"]
    },
    "admin": {"variables": ["TRIMTAB_ADMIN_KEYS"]},
    "speech": {"tasks": ("generate", "transcription", "realtime")},
}


def application(
    model_folder: Path,
    patch: pytest.MonkeyPatch,
    *,
    options: tuple[str, ...] = (),
    variables: tuple[str, ...] = (),
    tasks: tuple[str, ...] = ("generate",),
) -> FastAPI:
    patch.setenv("VLLM_PLUGINS", "trimtab")
    for variable in (SWITCH, *variables):
        patch.setenv(variable, "a-key-of-twenty-letters" if variable == "TRIMTAB_ADMIN_KEYS" else "1")
    parser: Any = FlexibleArgumentParser()  # type: ignore[no-untyped-call]  # vLLM's own is untyped
    args = make_arg_parser(parser).parse_args(["--model", str(model_folder), *options])
    return build_app(args, supported_tasks=tasks)  # type: ignore[arg-type]  # names of tasks


@pytest.mark.parametrize("server", SERVERS)
def test_every_route_has_a_row(server: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = application(model_folder, monkeypatch, **SERVERS[server])
    paths = {str(getattr(route, "path", route)) for route in app.routes}
    assert paths >= STEERED
    undecided = sorted(paths - ROUTES.keys())
    assert not undecided, f"decide in plugin/http/routes.py what becomes of `steering` on {undecided}"


@pytest.fixture(scope="module")
def client(model_folder: Path) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        yield TestClient(application(model_folder, patch, options=("--enable-scale-out",)))


BODIES: dict[str, dict[str, Any]] = {
    "/generative_scoring": {"query": "x", "items": ["y"], "label_token_ids": [1]},
    "/v1/systemone": {"state": "x", "questions": {"a": {"type": "yes_no"}}},
    "/inference/v1/generate": {"token_ids": [1], "sampling_params": {}},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "more", [{"steering": "polite"}, {"steering": "none"}, {"sampling_params": {"extra_args": {"steering": "polite"}}}]
)
def test_a_door_that_cannot_steer_refuses_to(client: TestClient, path: str, more: dict[str, Any]) -> None:
    assert ROUTES[path] is Serves.REFUSED
    answer = client.post(path, json={**BODIES[path], **more})
    assert answer.status_code == 400
    assert "steering" in answer.json()["error"]["param"]


def test_a_route_that_nobody_has_decided_on_refuses_the_field(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = application(model_folder, monkeypatch)

    @app.post("/v9/new")
    async def new(body: dict[str, Any]) -> str:
        return "unsteered"

    client = TestClient(app)
    assert client.post("/v9/new", json={"prompt": "x"}).json() == "unsteered"
    assert client.post("/v9/new", json={"prompt": "x", "steering": "polite"}).status_code == 400
