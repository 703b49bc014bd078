"""Rows and sentences for the figures of a run: what stands where in a table, and in which words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..findings import NO_OTHERS, Effect, Measured
from .answers import Served
from .benchmark import Scores

__all__ = ["compared_rows", "head_rows", "head_sentence", "note", "rows_of", "steering_in_words"]

Row = tuple[str | float | None, ...]

_HEAD = {
    "turned": "turned: source answers that became their target",
    "unchanged": "turned, otherwise unchanged: those that kept every other word",
    "strayed": "strayed: source answers that became something else",
    "off_target": "off target: other answers that changed",
    "stutter": "stutter: answers that repeat themselves",
}


def rows_of(scores: Scores) -> tuple[Row, ...]:
    """One run: figure, value, interval, n."""
    measured: list[Row] = [(name, one.value, _interval(one), float(one.n)) for name, one in scores.measured.items()]
    return (*measured, *((name, value, None, None) for name, value in scores.plain.items()))


def head_rows(effect: Effect) -> tuple[Row, ...]:
    """What heads every comparison: figure, unsteered, interval, steered, interval."""
    rows: list[Row] = []
    for name, words in _HEAD.items():
        if (found := getattr(effect, name)) is not None:
            rows.append((words, *_beside(effect.stutter_before if name == "stutter" else None, found)))
        elif name == "off_target" and effect.no_others:
            rows.append((words, None, None, NO_OTHERS, None))
    return tuple(rows)


def head_sentence(effect: Effect) -> str:
    """The same in one sentence."""
    told = [
        f"{words} {_share(one) if one is not None else NO_OTHERS}"
        for name, words in _HEAD.items()
        if (one := getattr(effect, name)) is not None or (name == "off_target" and effect.no_others)
    ]
    before = f", unsteered {_share(effect.stutter_before)}" if effect.stutter_before is not None else ""
    return "; ".join(told) + before + "."


def compared_rows(before: Scores, after: Scores, change: Mapping[str, Measured]) -> tuple[Row, ...]:
    """Two runs: what changed, then each one's figures: figure, unsteered, interval, steered, interval."""
    names = [name for name in dict.fromkeys([*before.measured, *after.measured]) if name != "answers that stutter"]
    return (
        *((name, None, None, one.value, _interval(one)) for name, one in change.items()),
        *((name, *_beside(before.measured.get(name), after.measured.get(name))) for name in names),
        *(
            (name, before.plain.get(name), None, after.plain.get(name), None)
            for name in dict.fromkeys([*before.plain, *after.plain])
        ),
    )


def note(*sentences: str, warnings: Sequence[str] = ()) -> str:
    """Sentences in a row, warnings first."""
    return " ".join([*(f"Warning: {one}." for one in warnings), *sentences])


def steering_in_words(asked: Any, served: Served | None) -> str:
    """A run's steering, as the server told it, else as it was asked for."""
    if served is not None and served.profile != "none":
        return f"{served.profile} at {served.alpha}"
    return "unsteered" if asked in (None, "none") else json.dumps(asked)


def _beside(*figures: Measured | None) -> Sequence[str | float | None]:
    return [cell for one in figures for cell in ((None, None) if one is None else (one.value, _interval(one)))]


def _share(one: Measured) -> str:
    return f"{100 * one.value:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f}, n = {one.n:,})"


def _interval(one: Measured) -> str:
    return f"{one.low:.3f} to {one.high:.3f}"
