"""`trimtab evaluate` through our own server: what is asked for is served, and a typo stops it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from examples.tinyworld.data import read_split, write_split
from examples.tinyworld.formats import write_vqav2
from tests.engine.server import MODEL_NAME, Server
from trimtab.offline.cli.app import app

pytestmark = pytest.mark.engine


def test_yes_becomes_no_through_the_server_and_a_typo_stops_the_run(server: Server, tmp_path: Path) -> None:
    write_split(tmp_path / "split", "test", 10, seed=2)
    write_vqav2(tmp_path / "data", tmp_path / "split", read_split(tmp_path / "split"))

    def evaluate(out: str, *more: object) -> Result:
        what = ("vqav2", tmp_path / "data", "--prompt", "{question}", "--out", tmp_path / out)
        where = ("--base-url", f"{server.http.base_url}/v1", "--served-model-name", MODEL_NAME)
        return CliRunner().invoke(app, ["evaluate", *map(str, (*what, *where, *more))])

    assert evaluate("plain").exit_code == 0
    steered = evaluate("steered", "--steering", "yes-to-no", "--against", tmp_path / "plain", "--map", "yes=no")
    assert steered.exit_code == 0, steered.output
    found = json.loads((tmp_path / "steered" / "results.json").read_text())
    assert found["against"]["measured"]["official, all"]["value"] > 0.9
    assert found["flips"]["turned"]["value"] > 0.9
    assert found["flips"]["off_target"]["value"] < 0.1
    assert found["served"]["profile"] == "yes-to-no"
    typo = evaluate("typo", "--steering", "yes-to-mo")
    assert typo.exit_code == 1
    assert "did you mean 'yes-to-no'" in typo.stderr
