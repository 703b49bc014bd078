"""What steerings did, in one form everywhere: the facts of one, and all of a run in one table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..findings import NO_OTHERS, AnswersFound, Effect, Finding, Measured, SweepFound, SweepPoint
from .numbers import count, measured, real, share
from .parts import Cell, Part, Section, column, table

__all__ = ["compared", "effect_columns", "effect_facts", "share_cell"]

_WORDS = {
    "turned": "turned",
    "unchanged": "turned, otherwise unchanged",
    "strayed": "strayed",
    "off_target": "off target",
    "stutter": "stutter",
    "stutter_before": "stutter, unsteered",
}
_NOTE = (
    "Each steering beside the unsteered model on the same samples. Turned: of the answers that were meant to turn, "
    "those that did; otherwise unchanged: those that also kept every other word. Strayed: those that became something "
    "else. Off target: of all other answers, those that changed. Stutter: answers that repeat themselves. Shares with "
    "95 % intervals. A control is no steering: what it turns is no merit of one."
)


def compared(findings: Mapping[str, Finding]) -> Section | None:
    """All steerings of a run in one table: each evaluation's, and what sweeps report on test, with their controls."""
    groups: dict[str, list[tuple[str, str, str, Effect]]] = {}  # by name, so that a steering and its controls meet
    for key, one in findings.items():
        if isinstance(one, AnswersFound) and one.effect is not None:
            name = key.removeprefix(f"{one.kind}-")
            groups.setdefault(name, []).append((one.steering, "steering", one.data or one.title, one.effect))
    told = [effect for group in groups.values() for *_, effect in group]
    for key, found in findings.items():
        if isinstance(found, SweepFound):
            name = key.removeprefix(f"{found.kind}-")
            tested = [one for one in found.points if one.split == "test" and one.effect not in told]
            group = groups.setdefault(name, [])
            group += [(f"{name}, {_setting(one)}", "steering", "test", _effect(one)) for one in tested]
            group += [(f"{name}, {one.what}", "control", "test", one.effect) for one in found.controls]
    rows = [row for group in groups.values() for row in group]
    if not rows:
        return None
    columns = {
        "steering": column([steering for steering, *_ in rows]),
        "kind": column([kind for _, kind, _, _ in rows]),
        "measured on": column([data for _, _, data, _ in rows]),
    } | effect_columns([effect for *_, effect in rows])
    if all(kind == "steering" for _, kind, _, _ in rows):
        del columns["kind"]
    parts: list[Part] = [table("Every steering", columns, folded=False)]
    return Section("compared", "Compared", "All steerings compared", _NOTE, "", parts)


def effect_facts(effect: Effect) -> dict[str, str]:
    """The figures of one steering by their names, those that it has."""
    return {
        words: NO_OTHERS if one is None else measured(one, True)
        for name, words in _WORDS.items()
        if (one := getattr(effect, name)) is not None or (name == "off_target" and effect.no_others)
    }


def effect_columns(effects: Sequence[Effect], without: Collection[str] = ()) -> dict[str, list[Cell]]:
    """The figures of several steerings as columns; one that none of them has is left out."""
    cells = {
        words: [
            share_cell(getattr(effect, name), NO_OTHERS if name == "off_target" and effect.no_others else "")
            for effect in effects
        ]
        for name, words in _WORDS.items()
        if name not in without
    }
    return {words: own for words, own in cells.items() if any(one.text for one in own)}


def share_cell(figure: Measured | None, without: str = "") -> Cell:
    """A share with its interval, or what is said where there is none."""
    if figure is None:
        return Cell(without)
    interval = f"{real(100 * figure.low, 1)} to {real(100 * figure.high, 1)}, n = {count(figure.n)}"
    return Cell(share(figure.value), figure.value, interval)


def _setting(one: SweepPoint) -> str:
    return f"{one.series}, layer {one.layer}, α = {one.alpha:g}"


def _effect(one: SweepPoint) -> Effect:
    """What a point of a sweep measured; of one that says no more, what it gained has turned, its cost is off target."""
    return one.effect or Effect(turned=one.gained, off_target=one.collateral)
