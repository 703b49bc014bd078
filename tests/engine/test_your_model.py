"""docs/your-model.md: its commands, one after the other, lead to a profile that does what the page says."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from examples.tinyworld.ask import CAPTION_PROMPT
from examples.tinyworld.data import read_split, write_split
from examples.tinyworld.formats import write_coco
from tests.commands import fenced
from tests.engine.engine import ROOT, SMALL
from tests.engine.server import MODEL_NAME, Server
from trimtab.offline.cli.app import app
from trimtab.offline.data import read_benchmark, write_data

pytestmark = pytest.mark.engine

PAGE = "docs/your-model.md"
ADDRESS = "http://localhost:8000"
SCENES = "1000"


@pytest.mark.parametrize("scenes", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_the_commands_of_the_page_make_captions_neutral(
    scenes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = [one.words for one in fenced() if one.page == PAGE and "## With LLaVA" not in one.section]
    assert [words[:2] for words in commands[:3]] == [("python", "-m"), ("python", "-m"), ("trimtab", "data")]
    assert SCENES in commands[0]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    with _started() as servers:
        for words in commands:
            if words[0] == "trimtab-serve":
                model, option, profiles = words[1:4]
                assert (option, words[-1]) == ("--steering-profiles", MODEL_NAME)
                servers.append(Server(tmp_path / "server.log", ROOT / model, tmp_path / profiles))
            elif words[0] == "python":
                with monkeypatch.context() as as_program:
                    as_program.setattr(
                        sys, "argv", [words[2], *(str(scenes) if word == SCENES else word for word in words[3:])]
                    )
                    as_program.delitem(sys.modules, words[2], raising=False)
                    runpy.run_module(words[2], run_name="__main__")
            else:
                address = f"{servers[0].http.base_url}".rstrip("/") if servers else ADDRESS
                done = CliRunner().invoke(app, [word.replace(ADDRESS, address) for word in words[1:]])
                assert done.exit_code == 0, f"{words}: {done.output}"
    flips = json.loads((tmp_path / "out/run/evaluations/steered/results.json").read_text())["flips"]
    assert flips["turned"]["n"] >= scenes / 20
    assert flips["unchanged"]["value"] >= 0.95
    assert flips["off_target"]["value"] == flips["stutter"]["value"] == 0
    page = (tmp_path / "out/run/report.html").read_text()
    assert "gender-neutral" in page
    assert "<ins>person</ins>" in page


def python_of_the_page() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / PAGE).read_text(), re.S)
    return str(code)


def test_the_python_of_the_page_names_what_there_is() -> None:
    tree = ast.parse(python_of_the_page())
    wanted = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    assert wanted
    for node in wanted:
        module = importlib.import_module(str(node.module))
        assert not [name.name for name in node.names if not hasattr(module, name.name)]


@pytest.mark.slow  # test_python_page.py runs another page's, and the test above does the same by commands
def test_the_python_of_the_page_does_the_same(tmp_path: Path) -> None:
    code = python_of_the_page()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    write_split(tmp_path / "out/world", "train", 100, 0)
    write_coco(tmp_path / "out/coco", tmp_path / "out/world", read_split(tmp_path / "out/world"))
    source = read_benchmark("coco", tmp_path / "out/coco")
    write_data(source, "coco", tmp_path / "out/data", prompt=CAPTION_PROMPT)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **SMALL}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = dict(line.split(":", 1) for line in done.stdout.splitlines() if "captions" in line)
    assert said["gendered captions converted"].startswith(" 100.0 %")
    assert said["gendered captions converted and otherwise unchanged"].startswith(" 100.0 %")


@contextmanager
def _started() -> Iterator[list[Server]]:
    servers: list[Server] = []
    try:
        yield servers
    finally:
        for server in servers:
            server.stop()
