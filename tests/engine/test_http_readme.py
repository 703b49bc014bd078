"""The README's Python, against a running server."""

from __future__ import annotations

import re

import pytest

from tests.engine.engine import ROOT
from tests.engine.server import MODEL_NAME, Server

pytestmark = pytest.mark.engine


def test_its_client_is_answered_and_steered(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    ours = {
        "http://localhost:8000": str(server.http.base_url),
        '"tinyworld"': f'"{MODEL_NAME}"',
        "gender-neutral": "coarse-middle-all",
    }
    for theirs, mine in ours.items():
        assert theirs in code
        code = code.replace(theirs, mine)
    monkeypatch.chdir(ROOT)
    before = server.counted().get("coarse-middle-all", 0)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
    assert server.counted()["coarse-middle-all"] == before + 1
