"""Sections about concepts: the cards of a dictionary, and how many concepts to take."""

from __future__ import annotations

from ..findings import ChoiceFound, Concept, ConceptsFound
from .charts import curves
from .numbers import count, real
from .parts import Card, Cards, Chart, Charts, Facts, Part, Thumb, column, table
from .pictures import Pictures

__all__ = ["choice_parts", "concepts_parts"]


def concepts_parts(found: ConceptsFound, pictures: Pictures) -> list[Part]:
    largest = max((one.rows for one in found.concepts), default=0) or 1
    cards = [
        Card(one.label, count(one.rows), one.rows / largest, one.purity, one.words, _thumbs(one, pictures))
        for one in found.concepts
    ]
    made = {"method": found.method, "layer": str(found.layer), "concepts": count(len(cards))}
    return [
        Facts(made | {name: real(value, 0 if value == int(value) else 3) for name, value in found.quality.items()}),
        Cards(cards),
    ]


def _thumbs(concept: Concept, pictures: Pictures) -> list[Thumb]:
    questions = concept.questions or ("",) * len(concept.images)
    return [Thumb(pictures.url(name), asked) for name, asked in zip(concept.images, questions, strict=True)]


def choice_parts(found: ChoiceFound, pictures: Pictures) -> list[Part]:
    if not found.k:
        return []
    charts = [
        Chart(name[:1].upper() + name[1:], curves(found.k, {name: line}, "K", "", found.chosen))
        for name, line in found.curves.items()
    ]
    figures = {"K": column(found.k, "count")} | {name: column(line) for name, line in found.curves.items()}
    return [Charts(charts), table("Quality for each K", figures, folded=True)]
