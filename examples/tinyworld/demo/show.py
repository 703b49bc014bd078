"""Prints what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from examples.tinyworld.demo.before_after import BeforeAfter

_CONSOLE = Console(width=118)
_STEPS = 4


def step(number: int, what: str) -> None:
    _CONSOLE.print(f"[bold]{number} of {_STEPS}[/bold]  {what}", highlight=False)


def answers(examples: Sequence[BeforeAfter]) -> None:
    for one in examples:
        _CONSOLE.print(f"\n  {one.picture}: {escape(one.question)}", highlight=False)
        _CONSOLE.print(f"    unsteered        {escape(one.before)}", highlight=False)
        _CONSOLE.print(f"    {one.profile:<16} [bold]{escape(one.after)}[/bold]", highlight=False)
    _CONSOLE.print()


def vqa(rows: list[dict[str, Any]], questions: int) -> None:
    table = Table(title=f"VQA on {questions} test questions, through the server (accuracy in %)")
    for name in ("steering", "kind", "layer", "α (bias)", "yes/no", "number", "other", "Δ original", "Δ target"):
        table.add_column(name, justify="left" if name in ("steering", "kind") else "right")
    table.add_column("moved", justify="right")
    table.add_column("KV")
    for row in rows:
        accuracy = row["accuracy"]
        table.add_row(
            row["steering"].replace("->", " → "),
            row["kind"] or "",
            _text(row["layer"], "d"),
            _text(row["alpha"], "g"),
            *(f"{accuracy[key]:.1f}" for key in ("yes_no", "number", "other")),
            _text(row["delta_original"], "+d"),
            _text(row["delta_target"], "+d"),
            _text(row["moved_share"], ".3f"),
            row["kv"] or "",
        )
    _CONSOLE.print(table)


def gender(found: dict[str, Any]) -> None:
    table = Table(title=f"Gender → neutral: {found['total']} gendered captions of the test split")
    for name in ("kind", "α", "converted", "deleted", "other facts changed"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for kind in ("coarse", "fine"):
        table.add_row(kind, *_gender_cells(found[kind]))
    _CONSOLE.print(table)


def throughput(found: dict[str, Any]) -> None:
    table = Table(title=f"Tokens per second, {len(found['pairs'])} alternating pairs (medians)")
    for name in ("unsteered", "steered (fine)", "ratio"):
        table.add_column(name, justify="right")
    table.add_row(f"{found['plain']:.0f}", f"{found['steered']:.0f}", f"{found['ratio']:.3f}")
    _CONSOLE.print(table)


def _gender_cells(point: dict[str, Any]) -> list[str]:
    return [
        f"{point['alpha']:g}",
        str(point["converted"]),
        str(point["deleted"]),
        f"{100 * point['other_facts_changed']:.1f} %",
    ]


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
