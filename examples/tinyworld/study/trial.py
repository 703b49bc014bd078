"""One steering at many strengths and layers: its curve on dev, the operating point there, and that point on test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from examples.tinyworld.study.exam import Exam
from trimtab.offline.findings import Measured, SweepPoint
from trimtab.offline.steering.operating_point import MOST_COLLATERAL, Point, best

Judge = Callable[[Exam, Sequence[str]], tuple[Measured, Measured]]
"""What answers gained of what was wanted, and changed of what was not, against the exam's unsteered ones."""


@dataclass(frozen=True)
class Variant:
    """A served profile. series: what it is called in curves and tables."""

    series: str
    profile: str
    layer: int


@dataclass(frozen=True)
class Setting(Point):
    """A variant at one strength, judged on dev."""

    variant: Variant
    point: SweepPoint


@dataclass(frozen=True)
class Outcome:
    """The setting that was chosen on dev, all that it was chosen from, and what it did on test."""

    setting: Setting
    tried: tuple[Setting, ...]
    test: SweepPoint
    answers: list[str]

    @property
    def points(self) -> tuple[SweepPoint, ...]:
        """For a SweepFound: the curve with the chosen point marked, and the test point."""
        curve = (one.point.model_copy(update={"chosen": one == self.setting}) for one in self.tried)
        return (*curve, self.test)

    @property
    def boldest(self) -> Setting:
        """The setting that gains most on dev, whatever it costs."""
        return best(self.tried, most_collateral=1.0)


def settings(exam: Exam, variants: Sequence[Variant], alphas: Sequence[float], judge: Judge) -> list[Setting]:
    """Every variant at every strength."""
    found = []
    for variant in variants:
        for alpha in alphas:
            point = judged(exam, variant, alpha, judge, exam.steered(variant.profile, alpha))
            found.append(Setting(alpha, point.gained.value, point.collateral.value, variant, point))
    return found


def decided(
    dev: Exam,
    test: Exam,
    variants: Sequence[Variant],
    alphas: Sequence[float],
    judge: Judge,
    most_collateral: float = MOST_COLLATERAL,
) -> Outcome:
    """The best of all variants and strengths on dev, reported on test."""
    tried = settings(dev, variants, alphas, judge)
    setting = best(tried, most_collateral)
    answers = test.steered(setting.variant.profile, setting.strength)
    point = judged(test, setting.variant, setting.strength, judge, answers)
    return Outcome(setting, tuple(tried), point.model_copy(update={"chosen": True}), answers)


def judged(exam: Exam, variant: Variant, alpha: float, judge: Judge, answers: Sequence[str]) -> SweepPoint:
    """What one round of answers is worth."""
    gained, collateral = judge(exam, answers)
    return SweepPoint(
        series=variant.series,
        layer=variant.layer,
        alpha=alpha,
        split=exam.split,
        gained=gained,
        collateral=collateral,
    )
