"""One steering: every candidate at every strength on dev, the best of each kind on test beside its controls.

none          the unsteered model
chosen        of each kind: most gain on dev at no more collateral than is allowed
null          the same with random vectors of the same norms
at any cost   of each kind: the most gain on dev, whatever it costs; where that is another setting
also          strengths that the configuration asks for
logit_bias    constants on the logits of the words, of a size that dev chose by the same rule
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..steering.operating_point import Point, best
from .ask import Exam
from .candidates import Made
from .controls import SIZES, scaled
from .goals import Judge, Verdict, judged

__all__ = ["Outcome", "Row", "Setting", "requests", "tried"]


@dataclass(frozen=True)
class Setting(Point):
    """A candidate at one strength, judged on dev."""

    made: Made
    verdict: Verdict


@dataclass(frozen=True)
class Row:
    """A setting on test. what: see the module. kind: of the candidate it belongs to."""

    what: str
    kind: str
    series: str
    layer: int | None
    alpha: float | None
    dose: float | None
    verdict: Verdict
    answers: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """tried: every setting on dev. chosen: the operating point, None where no setting does any good.

    rows: on test; the chosen setting's is `row`.
    """

    tried: tuple[Setting, ...]
    chosen: Setting | None
    row: Row | None
    rows: tuple[Row, ...]


def requests(made: Sequence[Made], dev: int, test: int, biased: bool) -> int:
    """How many answers a steering needs at most."""
    kinds = {one.kind: one for one in made}
    of_dev = 1 + sum(len(one.alphas) for one in made) + len(SIZES) * biased
    of_test = 1 + sum(3 * one.best for one in kinds.values()) + sum(len(one.also) for one in made) + biased
    return of_dev * dev + of_test * test


def tried(
    made: Sequence[Made],
    judge: Judge,
    dev: Exam,
    test: Exam,
    most_collateral: float,
    bias: Mapping[str, float] | None = None,
) -> Outcome:
    """Try every candidate on dev, and report the best on test."""
    settings = [_setting(one, alpha, judge, dev) for one in made for alpha in one.alphas]
    rows = [Row("none", "", "none", None, None, None, judged(judge, test.samples, test.plain, test.plain), test.plain)]
    winners: list[tuple[Setting, Row]] = []
    for kind in dict.fromkeys(one.kind for one in made):
        of_kind = [setting for setting in settings if setting.made.kind == kind]
        ranked = _ranked(of_kind, most_collateral)
        told = []
        for setting in ranked[: ranked[0].made.best]:
            told.append((setting.made, setting.strength))
            row = _row("chosen", setting.made, setting.strength, judge, test)
            rows += [row, _row("null", setting.made, setting.strength, judge, test)]
            winners.append((setting, row))
        bold = best(of_kind, most_collateral=1.0)
        extra = [(one, alpha, "also") for one in made if one.kind == kind for alpha in one.also]
        for one, alpha, what in [(bold.made, bold.strength, "at any cost"), *extra]:
            if (one, alpha) not in told:
                told.append((one, alpha))
                rows.append(_row(what, one, alpha, judge, test))
    if bias is not None:
        rows.append(_biased(bias, judge, dev, test, most_collateral))
    good = [pair for pair in winners if pair[0].gained > 0 and pair[0].collateral <= most_collateral]
    chosen = best([setting for setting, _ in good], most_collateral) if good else None
    reported = next((found for setting, found in good if setting is chosen), None)
    return Outcome(tuple(settings), chosen, reported, tuple(rows))


def _setting(one: Made, alpha: float, judge: Judge, dev: Exam) -> Setting:
    verdict = judged(judge, dev.samples, dev.plain, dev.steered(one.profile, alpha))
    return Setting(alpha, verdict.gained.value, verdict.collateral.value, one, verdict)


def _ranked(settings: Sequence[Setting], most_collateral: float) -> list[Setting]:
    """One setting per candidate, the best first."""
    left, found = list(settings), []
    while left:
        found.append(best(left, most_collateral))
        left = [setting for setting in left if setting.made is not found[-1].made]
    return found


def _row(what: str, one: Made, alpha: float, judge: Judge, test: Exam) -> Row:
    profile = one.null if what == "null" else one.profile
    answers = test.steered(profile, alpha)
    dose = profile.manifest.norms[one.layer].dose(alpha)
    verdict = judged(judge, test.samples, test.plain, answers)
    return Row(what, one.kind, one.series, one.layer, alpha, dose, verdict, answers)


def _biased(bias: Mapping[str, float], judge: Judge, dev: Exam, test: Exam, most_collateral: float) -> Row:
    points = []
    for size in SIZES:
        verdict = judged(judge, dev.samples, dev.plain, dev.biased(scaled(bias, size)))
        points.append(Point(size, verdict.gained.value, verdict.collateral.value))
    size = best(points, most_collateral).strength
    answers = test.biased(scaled(bias, size))
    verdict = judged(judge, test.samples, test.plain, answers)
    return Row("logit_bias", "logit_bias", "logit_bias", None, size, None, verdict, answers)
