"""Sections about fine-tunes: what one did to concepts, and when in training."""

from __future__ import annotations

from ..findings import DriftFound, ShiftFound
from .arrows import arrows
from .charts import curves, dumbbells, intervals, scatter
from .numbers import count
from .parts import Chart, Charts, Facts, Part, Table, column, table
from .pictures import Pictures

__all__ = ["drift_parts", "shift_parts"]

CONTROLS_CAPTION = (
    "Mean cosine to the match on held-out samples, with 95 % intervals. A shift of each concept's own counts for what "
    "it adds to the others."
)


def shift_parts(found: ShiftFound, pictures: Pictures) -> list[Part]:
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


def drift_parts(found: DriftFound, pictures: Pictures) -> list[Part]:
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
