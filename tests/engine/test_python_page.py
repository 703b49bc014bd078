"""docs/python.md, as it stands: its code is run, and it does what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.engine import ROOT, SMALL

pytestmark = pytest.mark.engine


def test_the_code_of_the_page_turns_yes_into_no(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.S)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **SMALL}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = [line for line in done.stdout.splitlines() if "?" in line]
    assert before.endswith("? yes")
    assert after == before.removesuffix("yes") + "no"
