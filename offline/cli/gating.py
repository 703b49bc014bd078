"""The options of `trimtab profile` that say where a fine profile acts, and how it is kept to that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import ValidationError

from trimtab.vectors import Gate

from ..errors import SettingError

if TYPE_CHECKING:
    from ..steering import Gating

__all__ = [
    "BackgroundConcepts",
    "GateScope",
    "LimitShare",
    "MaxDistance",
    "Metric",
    "MostUnmeant",
    "gating_of",
    "parse_pairs",
]

Metric = Annotated[Literal["euclidean", "cosine"], typer.Option(help="What --max-distance and --limit-share measure.")]
GateScope = Annotated[
    Literal["token", "once"],
    typer.Option("--gate", help="Choose the concept at every token, or once at the end of the prompt for the answer."),
]
MaxDistance = Annotated[
    float | None,
    typer.Option(min=0, help="Steer no state that is farther than this from its nearest concept. Default: no limit."),
]
LimitShare = Annotated[
    float | None,
    typer.Option(
        "--limit-share",
        min=0,
        max=1,
        help="Give each concept a limit of its own: the distance that this share of its states keeps, such as 0.99. "
        "Default: no limit.",
    ),
]
BackgroundConcepts = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Concepts of the background states, at most, that are added without a vector, so that other words do not "
        "fall to the steered concepts. Default: 32.",
    ),
]
MostUnmeant = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Refuse a profile that would steer a larger share of the positions that it is not meant for. "
        "Default: 0.05.",
    ),
]


def gating_of(
    scope: str,
    metric: Literal["euclidean", "cosine"],
    max_distance: float | None,
    limit: float | None,
    background_concepts: int | None,
    most_unmeant: float | None,
    force: bool,
) -> Gating:
    """What the options say.

    Raises:
        SettingError: a distance that the metric does not have.
    """
    from ..steering import Gating

    try:
        gate = Gate(scope="sequence" if scope == "once" else "token", metric=metric, max_distance=max_distance)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SettingError(f"--max-distance: {reason}") from error
    plain = Gating()
    return Gating(
        gate=gate,
        limit=limit,
        background_concepts=plain.background_concepts if background_concepts is None else background_concepts,
        most_unmeant=plain.most_unmeant if most_unmeant is None else most_unmeant,
        force=force,
    )


def parse_pairs(pairs: Iterable[str]) -> dict[int, int]:
    """{3: 7} from "3=7": what --pair says.

    Raises:
        SettingError: another form, or a concept that is to become two.
    """
    found: dict[int, int] = {}
    for pair in pairs:
        original, _, target = (part.strip() for part in pair.partition("="))
        if not (original.isascii() and original.isdigit() and target.isascii() and target.isdigit()):
            raise SettingError(f"cannot read the pair {pair!r}; expected two concept numbers, as in 3=7")
        if found.setdefault(int(original), int(target)) != int(target):
            raise SettingError(f"concept {original} is to become {found[int(original)]} and {target}; choose one")
    return found
