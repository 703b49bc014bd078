"""An engine that steers gets no server of vLLM's that would ignore the field on some of its routes."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.datastructures import State
from vllm.entrypoints.launchers.api_server import app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.plugins.endpoint_plugins import interface
from vllm.utils.argparse_utils import FlexibleArgumentParser

from trimtab.plugin.asking import SWITCH
from trimtab.plugin.config import SteeringConfig
from trimtab.plugin.errors import StartupError
from trimtab.plugin.http import attached

STEERS = SteeringConfig(profiles="p", digest="digest", rows={1: 4}, slots=3).to_additional_config()


@pytest.fixture(autouse=True)
def _installed() -> None:
    attached.install()
    attached.install()  # and wraps once


def built(folder: Path) -> FastAPI:
    parser: Any = FlexibleArgumentParser()  # type: ignore[no-untyped-call]  # vLLM's own is untyped
    args = make_arg_parser(parser).parse_args(["--model", str(folder)])
    return build_app(args, supported_tasks=("generate",))


def begin(state: Any, additional_config: dict[str, Any]) -> None:
    """What vLLM does last before its server listens."""
    engine: Any = SimpleNamespace(vllm_config=SimpleNamespace(additional_config=additional_config))
    for module in (app_state, interface):
        asyncio.run(module.init_endpoint_plugins_state(engine, state, Namespace()))


@pytest.mark.parametrize(("allowed", "asks"), [(None, "1"), ("", "1"), ("other", "1"), ("trimtab", "0")])
def test_a_server_that_our_routes_are_missing_from_is_refused_where_its_engine_steers(
    allowed: str | None, asks: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    if allowed is not None:
        monkeypatch.setenv("VLLM_PLUGINS", allowed)
    monkeypatch.setenv(SWITCH, asks)
    state = built(model_folder).state
    with pytest.raises(StartupError, match="start it with trimtab-serve, or name 'trimtab' in VLLM_PLUGINS"):
        begin(state, STEERS)
    for other in ({}, {"other": 1}, {"trimtab_capture": {"layers": [1]}}):
        begin(state, other)  # an engine that did not ask for steering


def test_a_server_with_our_routes_may_begin(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "other,trimtab")
    monkeypatch.setenv(SWITCH, "1")
    attached.check_attached(built(model_folder).state)


def test_what_has_no_routes_may_begin() -> None:
    begin(State(), STEERS)  # as `vllm run-batch` makes it
    asyncio.run(interface.init_endpoint_plugins_state(None, State({"endpoint_plugins": []}), Namespace()))
