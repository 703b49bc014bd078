"""Installed, trimtab changes nothing in a vLLM that does not ask for it, in and out of the range that we serve with."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trimtab import plugin
from trimtab.plugin import asking
from trimtab.plugin.errors import StartupError

LOOK = """
import json, sys
from vllm.plugins import load_general_plugins
load_general_plugins()
from vllm import envs
from vllm.config import VllmConfig
from vllm.model_executor.model_loader import base_loader
def start(**additional_config):
    try:
        VllmConfig(additional_config=additional_config)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
print(json.dumps({
    "modules": sorted(name for name in sys.modules if name.startswith("trimtab.") or name in ("numba", "llvmlite")),
    "builds": hasattr(base_loader.initialize_model, "trimtab_wrapped"),
    "known": "VLLM_TRIMTAB" in envs.environment_variables,
    "plain": start(other=1),
    "ours": start(trimtab={"profiles": "p"}),
    "captures": start(trimtab_capture={"layers": [1]}),
}))
"""
LIGHT = {
    "trimtab.plugin",
    "trimtab.plugin.asking",
    "trimtab.plugin.compat",
    "trimtab.plugin.compat.torchvision",
    "trimtab.plugin.compat.wrapping",
}


def look(path: Path | None = None, before: str = "", **env: str) -> tuple[dict[str, Any], str]:
    """What a fresh process finds once vLLM has loaded its plugins, and what it logged. path: goes before all others."""
    mine = {name: value for name, value in os.environ.items() if name not in ("VLLM_TRIMTAB", "VLLM_PLUGINS")}
    if path is not None:
        mine["PYTHONPATH"] = str(path)
    ended = subprocess.run(
        [sys.executable, "-c", before + LOOK], env={**mine, **env}, capture_output=True, text=True, timeout=550
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1]), ended.stdout + ended.stderr


@pytest.fixture
def another_vllm(tmp_path: Path) -> Path:
    """A folder that makes the installed vLLM one of a release that does not exist yet."""
    # Under its own name: vLLM tells by the distribution which platform it was built for.
    (name,) = {*importlib.metadata.packages_distributions()["vllm"]}
    folder = tmp_path / f"{name.replace('-', '_')}-9.9.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9.0\n")
    return tmp_path


def test_a_process_that_does_not_ask_meets_the_light_modules_alone() -> None:
    found, log = look()
    assert set(found["modules"]) <= LIGHT
    assert (found["builds"], found["known"], found["plain"]) == (False, False, None)
    for engine in ("ours", "captures"):
        assert "StartupError" in found[engine]
        assert "set VLLM_TRIMTAB=1 in the environment" in found[engine]
    assert "trimtab cannot" not in log


def test_a_release_out_of_range_serves_plainly_and_is_refused_where_it_would_steer(another_vllm: Path) -> None:
    found, log = look(another_vllm, VLLM_TRIMTAB="1")
    assert (found["builds"], found["known"], found["plain"]) == (False, False, None)
    for engine in ("ours", "captures"):
        assert "vLLM 9.9.0 is outside the range" in found[engine]
    assert log.count("trimtab cannot steer or capture in this process") == 1


def test_a_process_that_asks_is_ready_to_steer_though_it_may_write_nothing_at_home() -> None:
    found, log = look(VLLM_TRIMTAB="1", HOME="/proc/nowhere")
    assert (found["builds"], found["known"]) == (True, True)
    assert found["plain"] is found["ours"] is found["captures"] is None
    assert "trimtab cannot" not in log


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not asked."""
    monkeypatch.delenv(asking.SWITCH, raising=False)
    monkeypatch.setattr(asking, "_waiting", [])
    monkeypatch.setattr(asking, "_missing", "nobody asked")


def start(**additional_config: Any) -> list[str]:
    """Whether vLLM goes on to make this configuration."""
    made: list[str] = []
    asking._check(lambda self: made.append("made"), SimpleNamespace(additional_config=additional_config))
    return made


@pytest.mark.usefixtures("fresh")
def test_what_waits_is_installed_when_somebody_asks_and_only_once() -> None:
    installed: list[int] = []
    asking.when_asked(lambda: installed.append(1))
    asking.when_asked(lambda: installed.append(1))  # vLLM loads plugins more than once
    assert not installed
    with pytest.raises(StartupError, match="nobody asked"):
        start(trimtab={})
    asking.ask()
    asking.ask()
    assert installed == [1]
    assert os.environ[asking.SWITCH] == "1"
    assert start(trimtab={}) == ["made"]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("error", [ImportError("no name"), AttributeError("renamed"), RuntimeError("cannot cache")])
def test_what_cannot_be_installed_stops_no_engine_but_those_that_steer(error: Exception) -> None:
    def install() -> None:
        raise error

    asking.when_asked(install)
    asking.ask()
    assert start() == start(other=1) == ["made"]
    asking._check(lambda self: None, SimpleNamespace(additional_config=object()))  # vLLM takes one of any kind
    for key in ("trimtab", "trimtab_capture"):
        with pytest.raises(StartupError, match=str(error)):
            start(**{key: {}})


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("value", "asks"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_switch(value: str, asks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(asking.SWITCH, value)
    assert asking.asked() is asks


@pytest.mark.usefixtures("fresh")
def test_a_server_that_does_not_ask_gets_no_doors() -> None:
    assert plugin.endpoint_plugin().required_tasks == ()  # None would fit any server
    asking.ask()
    assert plugin.endpoint_plugin().required_tasks == ("generate",)
