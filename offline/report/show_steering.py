"""Sections about steering: strengths against what they cost, what became of answers, and any table."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from re import split

from markupsafe import Markup

from ..findings import NO_OTHERS, AnswersFound, Effect, Example, SweepFound, SweepPoint, TableFound
from .compared import effect_columns, effect_facts, share_cell
from .flow import changed, flow_chart, folded
from .numbers import count, share
from .pareto import Plane, pareto
from .parts import LONG, Chart, Charts, Examples, Facts, Pair, Part, Table, Thumb, column, table
from .pictures import Pictures

__all__ = ["answers_parts", "sweep_parts", "table_parts"]

PARETO_CAPTION = (
    "Up is wanted, right is not. A line joins the strengths α of one layer on the dev split, deeper layers in "
    "stronger colour. The ring is the point chosen there, the diamond the same on the test split with its 95 % "
    "intervals."
)


def sweep_parts(found: SweepFound, pictures: Pictures) -> list[Part]:
    if not found.points:
        return []
    drawn = [one for one in found.points if one.collateral is not None]  # the others have no place in the plane
    charts = []
    if drawn:
        plane = Plane.of(drawn)
        for series in dict.fromkeys(one.series for one in drawn):
            own = [one for one in drawn if one.series == series]
            charts.append(Chart(series, pareto(own, plane)))
    pointed = [one for one in found.points if one.chosen or one.split == "test"]
    chosen = [_points("Chosen on dev, reported on test", pointed)] if pointed else []
    curves = [Charts(charts, PARETO_CAPTION)] if charts else []
    return [*curves, *chosen, _points("Every setting", found.points, folded=True)]


def _points(caption: str, points: Sequence[SweepPoint], folded: bool | None = None) -> Table:
    columns = {
        "series": column([one.series for one in points]),
        "layer": column([one.layer for one in points], "count"),
        "α": column([one.alpha for one in points], "real"),
        "split": column([one.split + (" (chosen)" if one.chosen else "") for one in points]),
        "gained": [share_cell(one.gained) for one in points],
        "collateral": [share_cell(one.collateral, NO_OTHERS) for one in points],
    }
    if any(one.effect for one in points):
        columns |= effect_columns([one.effect or Effect() for one in points], without=("turned", "off_target"))
    return table(caption, columns, folded)


def answers_parts(found: AnswersFound, pictures: Pictures) -> list[Part]:
    total = sum(many for _, _, many in found.flow)
    flow = changed(found.flow)
    rate = f" ({share(flow.total() / total)})" if total else ""
    facts = {"steering": found.steering, "changed": f"{count(flow.total())} of {count(total)}{rate}"}
    parts: list[Part] = [Facts(facts | (effect_facts(found.effect) if found.effect else {}))]
    if found.examples:
        parts.append(Examples([_pair(one, pictures) for one in found.examples]))
    if flow:
        caption = "Changed answers only. In colour: into the most frequent new answer. The rarest are named together."
        parts.append(Charts([Chart("Where answers went", flow_chart(folded(flow)), caption)]))
        largest = sorted(flow.items(), key=lambda one: (-one[1], one[0]))
        columns = {
            "original": column([before for (before, _), _ in largest]),
            "new": column([after for (_, after), _ in largest]),
            "answers": column([many for _, many in largest], "count"),
        }
        parts.append(table("Every change", columns, folded=True))
    return parts


def _pair(example: Example, pictures: Pictures) -> Pair:
    """Both texts, with the words that only one of them has inside <del> or <ins>."""
    old, new = split(r"(\s+)", example.before), split(r"(\s+)", example.after)
    shown: tuple[list[Markup], list[Markup]] = [], []
    for what, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for side, words, mark in ((0, old[i:j], "del"), (1, new[k:m], "ins")):
            one = Markup("{}").format("".join(words))
            shown[side].append(one if what == "equal" or not one else Markup("<{0}>{1}</{0}>").format(mark, one))
    before, after = (Markup("").join(side) for side in shown)
    thumb = Thumb(pictures.url(example.picture), example.question) if example.picture else None
    return Pair(before, after, thumb, example.question, example.mark)


def table_parts(found: TableFound, pictures: Pictures) -> list[Part]:
    columns = [column([row[i] for row in found.rows]) for i in range(len(found.columns))]
    rows = list(zip(*columns, strict=True))
    made = [Facts({"command": found.command})] if found.command else []
    long = len(rows) > LONG
    return [*made, Table(found.title, found.columns, rows, frozenset(found.published), folded=long, titled=not long)]
