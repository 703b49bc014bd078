"""What a section of the page is made of. The template knows how to show each part by its `kind`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

from .numbers import column_decimals, count, percent, real, share

__all__ = [
    "Card",
    "Cards",
    "Cell",
    "Chart",
    "Charts",
    "Examples",
    "Facts",
    "Lines",
    "Pair",
    "Part",
    "Section",
    "Table",
    "Thumb",
    "column",
    "table",
]


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Thumb:
    """A small picture. url: a data URL, None for a gap. question: what was asked about it, "" where nobody knows."""

    url: str | None
    question: str = ""


@dataclass(frozen=True)
class Card:
    """A concept. share: of the largest concept's rows."""

    label: str
    rows: str
    share: float
    purity: float
    words: Sequence[str]
    images: Sequence[Thumb]


@dataclass(frozen=True)
class Cards:
    """Concepts side by side; those after the first `open` are folded."""

    kind: ClassVar[str] = "cards"
    cards: Sequence[Card]
    open: int = 6


@dataclass(frozen=True)
class Chart:
    """A drawing with its title and how to read it."""

    title: str
    svg: Markup
    caption: str = ""


@dataclass(frozen=True)
class Charts:
    """Drawings side by side; those after the first `open` are folded. caption: how to read all of them."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]
    caption: str = ""
    open: int = 2


@dataclass(frozen=True)
class Cell:
    """sort: by what a column of figures is ordered. small: what stands below the text, such as an interval."""

    text: str
    sort: float | None = None
    small: str = ""


@dataclass(frozen=True)
class Table:
    """published: rows that hold figures of the paper. folded: closed until it is clicked. titled: the caption is
    already above it."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    published: frozenset[int] = frozenset()
    folded: bool = False
    titled: bool = False

    def numeric(self, place: int) -> bool:
        """Whether a column holds figures only, and dashes where there is none."""
        cells = [row[place] for row in self.rows if row[place].text and not row[place].text.startswith("–")]
        return bool(cells) and all(cell.sort is not None for cell in cells)


@dataclass(frozen=True)
class Pair:
    """Original and steered text of a sample, with what differs marked. mark: such as "broken"."""

    before: Markup
    after: Markup
    thumb: Thumb | None = None
    question: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Examples:
    """Answers side by side; those after the first `open` are folded."""

    kind: ClassVar[str] = "examples"
    pairs: Sequence[Pair]
    open: int = 4


@dataclass(frozen=True)
class Lines:
    """Lines of code under a caption, folded."""

    kind: ClassVar[str] = "lines"
    caption: str
    lines: Sequence[str]


Part = Facts | Cards | Charts | Table | Examples | Lines


@dataclass(frozen=True)
class Section:
    """A finding. anchor: its place in the page. file: where it was read. open: whether its parts are seen at once."""

    anchor: str
    topic: str
    title: str
    note: str
    file: str
    parts: Sequence[Part] = field(default_factory=tuple)
    open: bool = True


LONG = 12
"""Rows of a table that is not folded."""


def table(caption: str, columns: Mapping[str, Sequence[Cell]], folded: bool | None = None) -> Table:
    """A table from its columns. folded: by default as soon as it is long."""
    rows = list(zip(*columns.values(), strict=True))
    return Table(caption, list(columns), rows, folded=len(rows) > LONG if folded is None else folded)


def column(values: Sequence[str | float | None], how: str = "auto") -> list[Cell]:
    """Cells for values; how: "auto" (decimals that suit all of them), "count", "real", "percent" or "share"."""
    figures = [value for value in values if isinstance(value, (int, float))]
    decimals = column_decimals(figures)
    writers: dict[str, Callable[[float], str]] = {"count": count, "real": real, "percent": percent, "share": share}
    write = writers.get(how) or (lambda value: real(value, decimals))
    return [_cell(value) if not isinstance(value, (int, float)) else Cell(write(value), value) for value in values]


def _cell(value: str | None) -> Cell:
    return Cell(value or "")
