"""What a tuning writes down: a table of test, the settings of dev, one curve and one flow of answers per steering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from trimtab.vectors import AlphaRange, Profile

from ..evaluation.effect import broken
from ..evaluation.examples import Picked, with_pictures
from ..evaluation.rates import lumped
from ..findings import (
    NO_OTHERS,
    AnswersFound,
    Control,
    Effect,
    Example,
    Finding,
    Measured,
    SweepFound,
    SweepPoint,
    TableFound,
)
from ..states.samples import Sample
from ..steering.operating_point import front
from .goals import Cell
from .trial import REPORTED, Outcome, Row

__all__ = ["HEAD", "controls_of", "evaluation", "findings", "percent", "points_of", "with_evaluation"]

_FIGURES = {
    "turned": "turned %",
    "unchanged": "turned, otherwise unchanged %",
    "strayed": "strayed %",
    "off_target": "off target %",
    "stutter": "stutter %",
}
HEAD = ("steering", "", "candidate", "layer", "alpha", "dose", *_FIGURES.values())
"""The columns that every table begins with; those that stay empty are left out."""
_NOTE = (
    "Turned: answers that did as they were meant to. Strayed: answers that became something else. Off target: other "
    "answers that changed. In brackets: 95 % intervals. Null: random vectors of the same norms, the mean of all draws, "
    "with an interval that holds the one of every draw."
)
_FREQUENT, _EXAMPLES = 14, 12


def findings(
    name: str,
    outcomes: Mapping[str, Outcome],
    tests: Mapping[str, Sequence[Sample]],
    *,
    most_collateral: float,
    run: Path,
    command: str,
) -> list[tuple[str, Finding]]:
    """Every finding of a configuration with its name in the run folder, the table of test first.

    tests: each steering's samples of test.
    """
    rule = f"at most {100 * most_collateral:g} % collateral"
    asked = max(len(samples) for samples in tests.values())
    lines = [
        (steering, _what(row), row.series, row.layer, row.alpha, row.dose, row.verdict.effect, row.verdict.extras)
        for steering, outcome in outcomes.items()
        for row in outcome.rows
    ]
    title, note = f"{name}: {asked:,} test samples, through the server", f"Chosen on dev: most gain, {rule}. {_NOTE}"
    found: list[tuple[str, Finding]] = [
        (name, _table(title, note, lines, command)),
        (f"{name}-dev", _dev(name, outcomes, command)),
    ]
    for steering, outcome in outcomes.items():
        found.append((steering, _sweep(steering, outcome, rule)))
        if outcome.row is not None:
            found.append((steering, _answers(steering, outcome.row, outcome.rows[0], tests[steering], run)))
    return found


def percent(found: Measured | None) -> str | None:
    """A rate with its interval, such as "93.8 (88.1 to 96.9)"; None for None."""
    return None if found is None else f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def evaluation(outcome: Outcome, most_collateral: float) -> dict[str, JsonValue]:
    """The figures of an operating point for its profile's card: it, its null control, the unsteered model."""
    assert outcome.chosen is not None
    assert outcome.row is not None
    row, chosen = outcome.row, outcome.chosen
    null = next(
        one for one in outcome.rows
        if one.what == "null" and (one.series, one.layer, one.alpha) == (row.series, row.layer, row.alpha)
    )  # fmt: skip
    told: dict[str, JsonValue] = {
        "rule": f"most gain on dev at {100 * most_collateral:g} % collateral or less",
        "kind": row.series,
        "alpha": chosen.strength,
        "dev": {"gained": percent(chosen.verdict.gained), "collateral": percent(chosen.verdict.collateral)},
        "test": _figures(row.verdict.effect),
        "test, null control": {**_figures(null.verdict.effect), "draws": len(null.draws)},
        "test, samples": row.verdict.effect.stutter.n if row.verdict.effect.stutter else 0,
    }
    for one in outcome.rows:
        if one.what == "logit_bias":
            told["test, logit_bias"] = _figures(one.verdict.effect)
    return {"tuning": told}


def with_evaluation(outcome: Outcome, name: str, most_collateral: float) -> Profile:
    """The chosen profile under another name, with its figures on the card.

    Its default strength is the chosen one, and a request may ask for what was tried, not for more.
    """
    assert outcome.chosen is not None
    profile, figures = outcome.chosen.made.profile, evaluation(outcome, most_collateral)
    alpha = AlphaRange(
        default=outcome.chosen.strength,
        min=0.0,
        max=max(one.strength for one in outcome.tried if one.made is outcome.chosen.made),
    )
    manifest = profile.manifest
    told = {**manifest.provenance.evaluation, **figures}
    return Profile(
        manifest.model_copy(
            update={
                "name": name,
                "alpha": alpha,
                "provenance": manifest.provenance.model_copy(update={"evaluation": told}),
            }
        ),
        profile.tensors,
    )


def _figures(effect: Effect) -> dict[str, JsonValue]:
    return {label: text for field, label in _FIGURES.items() if (text := _figure(effect, field)) is not None}


def _figure(effect: Effect, field: str) -> str | None:
    return NO_OTHERS if field == "off_target" and effect.no_others else percent(getattr(effect, field))


def _what(row: Row) -> str:
    return "" if row.what in ("none", "logit_bias") else row.what


def _dev(name: str, outcomes: Mapping[str, Outcome], command: str) -> TableFound:
    rows = []
    for steering, outcome in outcomes.items():
        best = {id(one) for one in front([one for one in outcome.tried if one.verdict.collateral is not None])}
        for one in outcome.tried:
            mark = "chosen" if one is outcome.chosen else "front" if id(one) in best else ""
            made, verdict = one.made, one.verdict
            extras = {**verdict.extras, "collateral %": percent(verdict.collateral) or NO_OTHERS}
            dose = made.dose(one.strength)
            rows.append((steering, mark, made.series, made.layer, one.strength, dose, verdict.effect, extras))
    return _table(
        f"{name}: every setting that was tried on dev",
        f"Front: no other setting gains as much for as little collateral. {_NOTE}",
        rows,
        command,
    )


_Line = tuple[str, str, str, int | None, float | None, float | None, Effect, Mapping[str, Cell]]


def _table(title: str, note: str, lines: Sequence[_Line], command: str) -> TableFound:
    """Columns that no line fills are left out; extras of all lines stand side by side."""
    extras = list(dict.fromkeys(name for *_, more in lines for name in more))
    columns = (*HEAD, *extras)
    rows = [
        (
            *line[:5],
            None if line[5] is None else round(line[5], 2),
            *(_figure(line[6], field) for field in _FIGURES),
            *(line[7].get(name) for name in extras),
        )
        for line in lines
    ]
    filled = [at for at in range(len(columns)) if any(row[at] is not None for row in rows)]
    return TableFound(
        title=title,
        note=note,
        columns=tuple(columns[at] for at in filled),
        rows=tuple(tuple(row[at] for at in filled) for row in rows),
        command=command,
    )


def _sweep(steering: str, outcome: Outcome, rule: str) -> SweepFound:
    return SweepFound(
        title=f"{steering}: gain against collateral change",
        note=f"Every candidate at every strength on dev, and what was chosen there ({rule}) on test.",
        points=points_of(outcome),
        controls=controls_of(outcome),
    )


def controls_of(outcome: Outcome) -> tuple[Control, ...]:
    """Random vectors beside the best setting of each kind, and `logit_bias`, on test."""
    return tuple(
        Control(what=f"{len(row.draws)} draws of random vectors for {row.series}, layer {row.layer}, α = {row.alpha:g}"
                if row.what == "null" else f"logit_bias {row.alpha:g}", effect=row.verdict.effect)
        for row in outcome.rows
        if row.what in ("null", "logit_bias")
    )  # fmt: skip


def points_of(outcome: Outcome) -> tuple[SweepPoint, ...]:
    """The curve of dev, and the best setting of each kind on test."""
    chosen = [row for row in outcome.rows if row.what in REPORTED]
    return (
        *(
            SweepPoint(
                series=one.made.series, layer=one.made.layer, alpha=one.strength, split="dev",
                gained=one.verdict.gained, collateral=one.verdict.collateral, chosen=one is outcome.chosen,
                effect=one.verdict.effect,
            )
            for one in outcome.tried
        ),
        *(
            SweepPoint(
                series=row.series, layer=row.layer or 0, alpha=row.alpha or 0.0, split="test",
                gained=row.verdict.gained, collateral=row.verdict.collateral, chosen=row is outcome.row,
                effect=row.verdict.effect,
            )
            for row in chosen
        ),
    )  # fmt: skip


def _answers(steering: str, row: Row, plain: Row, samples: Sequence[Sample], run: Path) -> AnswersFound:
    flow = Counter(zip(plain.answers, row.answers, strict=True))
    frequent = [text for text, _ in Counter([*plain.answers, *row.answers]).most_common(_FREQUENT)]
    changed = [
        Picked(
            sample.id,
            sample.image,
            Example(
                before=old,
                after=new,
                question=sample.question,
                mark="broken" if broken(old, new, False, None) else "",
            ),
        )
        for sample, old, new in zip(samples, plain.answers, row.answers, strict=True)
        if old != new
    ]
    return AnswersFound(
        title=f"{steering}: what {row.series} at alpha {row.alpha:g} made of each answer",
        steering=f"{steering}, {row.series}",
        flow=tuple(lumped(flow, frequent)),
        examples=with_pictures(sorted(changed, key=lambda one: not one.example.mark)[:_EXAMPLES], run),
        data="test",
        effect=row.verdict.effect,
    )
