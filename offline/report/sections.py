"""From a finding to the parts of its section: one function for each kind of finding."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import singledispatch
from re import split

from markupsafe import Markup

from ..findings import (
    AnswersFound,
    ChoiceFound,
    ConceptsFound,
    DriftFound,
    Finding,
    ShiftFound,
    SweepFound,
    SweepPoint,
    TableFound,
)
from .arrows import arrows
from .charts import curves, dumbbells, intervals, scatter
from .flow import changed, flow_chart, folded
from .numbers import count, measured, real, share
from .pareto import Plane, pareto
from .parts import Card, Cards, Cell, Chart, Charts, Examples, Facts, Part, Table, column, table
from .pictures import Pictures

__all__ = ["TOPICS", "parts_of"]

TOPICS: dict[type[Finding], str] = {
    ConceptsFound: "Concepts",
    ChoiceFound: "Number of concepts",
    ShiftFound: "Shift",
    DriftFound: "Drift over training",
    SweepFound: "Steering strength",
    AnswersFound: "Answers",
    TableFound: "Table",
}
"""What each kind is called, in the order in which a reader meets them."""

PARETO_CAPTION = (
    "Up is wanted, right is not. A line joins the strengths α of one layer on the dev split, deeper layers in "
    "stronger colour. The ring is the point chosen there, the diamond the same on the test split with its 95 % "
    "intervals."
)

CONTROLS_CAPTION = (
    "Mean cosine to the match on held-out samples, with 95 % intervals. A shift of each concept's own counts for what "
    "it adds to the others."
)


@singledispatch
def parts_of(found: Finding, pictures: Pictures) -> list[Part]:
    """The parts that show a finding, without those for which it holds nothing."""
    raise TypeError(f"a {type(found).__name__} cannot be shown")


@parts_of.register
def _(found: ConceptsFound, pictures: Pictures) -> list[Part]:
    largest = max((one.rows for one in found.concepts), default=0) or 1
    cards = [
        Card(one.label, count(one.rows), one.rows / largest, one.purity, one.words, [*map(pictures.url, one.images)])
        for one in found.concepts
    ]
    made = {"method": found.method, "layer": str(found.layer), "concepts": count(len(cards))}
    return [
        Facts(made | {name: real(value, 0 if value == int(value) else 3) for name, value in found.quality.items()}),
        Cards(cards),
    ]


@parts_of.register
def _(found: ChoiceFound, pictures: Pictures) -> list[Part]:
    if not found.k:
        return []
    charts = [
        Chart(name[:1].upper() + name[1:], curves(found.k, {name: line}, "K", "", found.chosen))
        for name, line in found.curves.items()
    ]
    figures = {"K": column(found.k, "count")} | {name: column(line) for name, line in found.curves.items()}
    return [Charts(charts), table("Quality for each K", figures, folded=True)]


@parts_of.register
def _(found: ShiftFound, pictures: Pictures) -> list[Part]:
    all_of = found.concepts
    charts = []
    if all_of:
        caption = "A dot is a concept of the original, its arrow the shift, the ring its match in the fine-tune."
        charts.append(Chart("Where concepts go", arrows(all_of), caption))
    if found.controls:
        charts.append(Chart("Controls", intervals(found.controls, "per concept"), CONTROLS_CAPTION))
    recovered = [(one.label, one.consistency, one.recovery) for one in all_of if one.recovery is not None]
    if recovered:
        charts.append(Chart("Consistency and recovery", scatter(recovered, "consistency", "recovery")))
    if all_of:
        cosines = [(one.label, one.cosine_before, one.cosine_after) for one in all_of]
        overlaps = [(one.label, one.overlap_before, one.overlap_after) for one in all_of]
        caption = "Ring: before the shift. Dot: after it."
        charts.append(Chart("Cosine to the match", dumbbells(cosines, "cosine"), caption))
        charts.append(
            Chart("Words shared with the match", dumbbells(overlaps, "T-Overlap, %", in_percent=True), caption)
        )
    if found.correlations:
        charts.append(Chart("Correlations", intervals(found.correlations), "With 95 % intervals."))
    made = Facts({"layer": str(found.layer), "concepts": count(len(all_of))})
    return [made, *([Charts(charts)] if charts else []), *([_shifts(found), _shift_words(found)] if all_of else [])]


def _shifts(found: ShiftFound) -> Table:
    all_of = found.concepts
    columns = {
        "concept": column([one.label for one in all_of]),
        "match": column([one.match for one in all_of]),
        "states": column([one.rows for one in all_of], "count"),
        "‖Δ‖": column([one.magnitude for one in all_of], "real"),
        "consistency": column([one.consistency for one in all_of], "real"),
        "pairwise": column([one.pairwise_consistency for one in all_of], "real"),
        "cosine before": column([one.cosine_before for one in all_of], "real"),
        "after": column([one.cosine_after for one in all_of], "real"),
        "recovery": column([one.recovery for one in all_of], "real"),
        "overlap before": column([one.overlap_before for one in all_of], "percent"),
        "overlap after": column([one.overlap_after for one in all_of], "percent"),
    }
    return table("Every concept's shift", columns)


def _shift_words(found: ShiftFound) -> Table:
    columns = {"concept": column([one.label for one in found.concepts])}
    for name in ("before", "after", "match"):
        columns[f"words {name}"] = column([", ".join(getattr(one, f"words_{name}")) for one in found.concepts])
    return table("Words before the shift, after it, and of the match", columns, folded=True)


@parts_of.register
def _(found: DriftFound, pictures: Pictures) -> list[Part]:
    if not found.steps or not found.curves:
        return []
    caption = "Words that a concept shares with itself before training, in percent."
    chart = Chart(
        "Word overlap with the original",
        curves(found.steps, found.curves, "step", "T-Overlap, %", holding=(0, 100)),
        caption,
    )
    figures = {"step": column(found.steps, "count")} | {
        name: column(line, "percent") for name, line in found.curves.items()
    }
    return [Charts([chart]), table("Overlap at each step", figures, folded=True)]


@parts_of.register
def _(found: SweepFound, pictures: Pictures) -> list[Part]:
    if not found.points:
        return []
    plane = Plane.of(found.points)
    charts = []
    for series in dict.fromkeys(one.series for one in found.points):
        own = [one for one in found.points if one.series == series]
        charts.append(Chart(series, pareto(own, plane)))
    pointed = [one for one in found.points if one.chosen or one.split == "test"]
    chosen = [_points("Chosen on dev, reported on test", pointed)] if pointed else []
    return [Charts(charts, PARETO_CAPTION), *chosen, _points("Every setting", found.points, folded=True)]


def _points(caption: str, points: Sequence[SweepPoint], folded: bool = False) -> Table:
    columns = {
        "series": column([one.series for one in points]),
        "layer": column([one.layer for one in points], "count"),
        "α": column([one.alpha for one in points], "real"),
        "split": column([one.split + (" (chosen)" if one.chosen else "") for one in points]),
        "gained": [Cell(measured(one.gained, True), one.gained.value) for one in points],
        "collateral": [Cell(measured(one.collateral, True), one.collateral.value) for one in points],
    }
    return table(caption, columns, folded)


@parts_of.register
def _(found: AnswersFound, pictures: Pictures) -> list[Part]:
    total = sum(many for _, _, many in found.flow)
    flow = changed(found.flow)
    rate = f" ({share(flow.total() / total)})" if total else ""
    parts: list[Part] = [
        Facts({"steering": found.steering, "changed": f"{count(flow.total())} of {count(total)}{rate}"})
    ]
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
    return [*parts, *([Examples([_marked(one.before, one.after) for one in found.examples])] if found.examples else [])]


def _marked(before: str, after: str) -> tuple[Markup, Markup]:
    """Both texts, with the words that only one of them has inside <del> or <ins>."""
    old, new = split(r"(\s+)", before), split(r"(\s+)", after)
    shown: tuple[list[Markup], list[Markup]] = [], []
    for what, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for side, words, mark in ((0, old[i:j], "del"), (1, new[k:m], "ins")):
            one = Markup("{}").format("".join(words))
            shown[side].append(one if what == "equal" or not one else Markup("<{0}>{1}</{0}>").format(mark, one))
    return Markup("").join(shown[0]), Markup("").join(shown[1])


@parts_of.register
def _(found: TableFound, pictures: Pictures) -> list[Part]:
    columns = [column([row[i] for row in found.rows]) for i in range(len(found.columns))]
    rows = list(zip(*columns, strict=True))
    made = [Facts({"command": found.command})] if found.command else []
    return [*made, Table(found.title, found.columns, rows, frozenset(found.published), titled=True)]
