"""One steering: every candidate at every strength on dev, the best of each kind on test beside its controls.

none          the unsteered model
chosen        of each kind: most gain on dev at no more collateral than is allowed
not chosen    of a kind without such a setting, or whose collateral is not known: that with the least
null          the same with random vectors of the same norms, in several draws
at any cost   of each kind: the most gain on dev, whatever it costs; where that is another setting
also          strengths that the configuration asks for
logit_bias    constants on the logits of the words, of a size that dev chose by the same rule
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..findings import Effect
from ..statistics import over_draws
from ..steering.operating_point import Point, best
from .ask import Exam
from .candidates import Made
from .config import NULLS
from .controls import SIZES, scaled
from .goals import Cell, Judge, Verdict, judged

__all__ = ["REPORTED", "Outcome", "Row", "Setting", "requests", "tried"]

REPORTED = ("chosen", "not chosen")
"""The rows of which every kind of candidate has one."""


@dataclass(frozen=True)
class Setting(Point):
    """A candidate at one strength, judged on dev."""

    made: Made
    verdict: Verdict


@dataclass(frozen=True)
class Row:
    """A setting on test. what: see the module. kind: of the candidate it belongs to.

    draws: the answers, once per draw of random vectors; of everything that is not random there is one. verdict: over
    all draws, see `over_draws`.
    """

    what: str
    kind: str
    series: str
    layer: int | None
    alpha: float | None
    dose: float | None
    verdict: Verdict
    draws: tuple[Sequence[str], ...]

    @property
    def answers(self) -> Sequence[str]:
        """Those of the first draw."""
        return self.draws[0]


@dataclass(frozen=True)
class Outcome:
    """tried: every setting on dev. chosen: the operating point, None where no setting does any good.

    rows: on test; the chosen setting's is `row`.
    """

    tried: tuple[Setting, ...]
    chosen: Setting | None
    row: Row | None
    rows: tuple[Row, ...]


def requests(made: Sequence[Made], dev: int, test: int, nulls: int, biased: bool, settles: bool) -> int:
    """How many answers a steering needs at most. settles: whether dev decides something of every setting."""
    kinds = {one.kind: one for one in made}
    also = sum(len(one.also) for one in made)
    of_dev = 1 + sum(len(one.alphas) for one in made) + len(SIZES) * biased + also * settles
    of_test = 1 + sum((2 + nulls) * one.best for one in kinds.values()) + also + biased
    return of_dev * dev + of_test * test


def tried(
    made: Sequence[Made],
    judge: Judge,
    dev: Exam,
    test: Exam,
    most_collateral: float,
    bias: Mapping[str, float] | None = None,
    nulls: int = NULLS,
) -> Outcome:
    """Try every candidate on dev, and report the best on test. nulls: draws of random vectors for each null control."""
    settings = [_setting(one, alpha, judge, dev) for one in made for alpha in one.alphas]
    unsteered = judged(judge, test.samples, test.plain, test.plain)
    rows = [Row("none", "", "none", None, None, None, unsteered, (test.plain,))]
    winners: list[tuple[Setting, Row]] = []
    for kind in dict.fromkeys(one.kind for one in made):
        of_kind = [setting for setting in settings if setting.made.kind == kind]
        ranked = _ranked(of_kind, most_collateral)
        told = []
        for setting in ranked[: ranked[0].made.best]:
            told.append((setting.made, setting.strength))
            allowed = setting.collateral <= most_collateral
            row = _row(REPORTED[not allowed], setting.made, setting.strength, judge, dev, test)
            rows += [row, _row("null", setting.made, setting.strength, judge, dev, test, nulls)]
            if allowed and setting.gained > 0:
                winners.append((setting, row))
        bold = best(of_kind, most_collateral=1.0)
        extra = [(one, alpha, "also") for one in made if one.kind == kind for alpha in one.also]
        for one, alpha, what in [(bold.made, bold.strength, "at any cost"), *extra]:
            if (one, alpha) not in told:
                told.append((one, alpha))
                rows.append(_row(what, one, alpha, judge, dev, test))
    if bias is not None:
        rows.append(_biased(bias, judge, dev, test, most_collateral))
    chosen = best([setting for setting, _ in winners], most_collateral) if winners else None
    reported = next((found for setting, found in winners if setting is chosen), None)
    return Outcome(tuple(settings), chosen, reported, tuple(rows))


def _setting(one: Made, alpha: float, judge: Judge, dev: Exam) -> Setting:
    verdict = judged(judge, dev.samples, dev.plain, dev.steered(one.profile, alpha))
    return Setting(alpha, verdict.gained.value, _cost(verdict), one, verdict)


def _cost(verdict: Verdict) -> float:
    return math.inf if verdict.collateral is None else verdict.collateral.value


def _ranked(settings: Sequence[Setting], most_collateral: float) -> list[Setting]:
    """One setting per candidate, the best first."""
    left, found = list(settings), []
    while left:
        found.append(best(left, most_collateral))
        left = [setting for setting in left if setting.made is not found[-1].made]
    return found


def _row(what: str, one: Made, alpha: float, judge: Judge, dev: Exam, test: Exam, nulls: int = 0) -> Row:
    """nulls: draws of random vectors in place of the profile; 0 for the profile itself."""
    if judge.settled is not None:
        judge = judge.settled(dev.plain, dev.steered(one.profile, alpha))
    profiles = one.nulls(nulls) or (one.profile,)
    draws = tuple(test.steered(profile, alpha) for profile in profiles)
    verdict = _over_draws([judged(judge, test.samples, test.plain, answers) for answers in draws])
    return Row(what, one.kind, one.series, one.layer, alpha, one.dose(alpha), verdict, draws)


def _over_draws(verdicts: Sequence[Verdict]) -> Verdict:
    """All draws in one: rates as `over_draws` has them; of further figures all, where they differ."""
    first = verdicts[0]
    effects = {
        name: over_draws([getattr(one.effect, name) for one in verdicts])
        for name in Effect.model_fields
        if getattr(first.effect, name) is not None
    }
    costs = [one.collateral for one in verdicts if one.collateral is not None]
    return Verdict(
        Effect(**effects),
        over_draws([one.gained for one in verdicts]),
        over_draws(costs) if costs else None,
        {name: _each([one.extras.get(name) for one in verdicts]) for name in first.extras},
    )


def _each(cells: Sequence[Cell]) -> Cell:
    return cells[0] if len(set(cells)) == 1 else " | ".join(str(one) for one in cells)


def _biased(bias: Mapping[str, float], judge: Judge, dev: Exam, test: Exam, most_collateral: float) -> Row:
    points = []
    for size in SIZES:
        verdict = judged(judge, dev.samples, dev.plain, dev.biased(scaled(bias, size)))
        points.append(Point(size, verdict.gained.value, _cost(verdict)))
    size = best(points, most_collateral).strength
    answers = test.biased(scaled(bias, size))
    verdict = judged(judge, test.samples, test.plain, answers)
    return Row("logit_bias", "logit_bias", "logit_bias", None, size, None, verdict, (answers,))
