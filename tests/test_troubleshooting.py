"""docs/troubleshooting.md has an entry for each reason not to start."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def said(node: ast.expr) -> str:
    """The text of a string in the source, with … for what is put into it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(said, node.values))
    return "…"


def startup_errors() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "plugin").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "StartupError":
                yield f"{path.relative_to(ROOT)}:{node.lineno}", said(node.args[0])


def test_each_reason_not_to_start_has_an_entry() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    entries = [re.compile(re.escape(entry).replace("…", ".*")) for entry in re.findall(r"^\| `(.+?)` \|", page, re.M)]
    errors = dict(startup_errors())
    assert len(errors) > 20
    missing = {place: text for place, text in errors.items() if not any(entry.search(text) for entry in entries)}
    assert not missing
