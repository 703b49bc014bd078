"""From intervals to a verdict: ship, stop or undecided, and why.

    the primary metric   better: its whole interval is on the wanted side of 0     worse: on the other     open: neither
    a guardrail          safe: its interval rules out a loss beyond the margin     broken: all of it is beyond
                         unclear: neither

Ship needs a better primary metric and every guardrail safe. Stop needs a worse primary metric or a broken guardrail. A
sample ratio mismatch leaves everything undecided: then the numbers say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

__all__ = ["Guarded", "Interval", "Primary", "State", "Verdict", "decide", "guarded", "primary", "together"]

Interval = tuple[float, float]
Better = Literal["higher", "lower"]
Primary = Literal["better", "worse", "open"]
Guarded = Literal["safe", "broken", "unclear"]
State = Literal["better", "worse", "open", "safe", "broken", "unclear"]
Verdict = Literal["ship", "stop", "undecided"]


def primary(interval: Interval | None, better: Better) -> Primary:
    """interval: of arm - control; None where nothing can be told."""
    if interval is None:
        return "open"
    low, high = _wanted(interval, better)
    return "better" if low > 0 else "worse" if high < 0 else "open"


def guarded(interval: Interval | None, better: Better, margin: float) -> Guarded:
    """interval: of arm - control, in the unit of the margin; margin: the largest loss that is accepted, at least 0."""
    if interval is None:
        return "unclear"
    low, high = _wanted(interval, better)
    return "safe" if low > -margin else "broken" if high < -margin else "unclear"


def decide(
    mismatch: bool, main: State, guardrails: Mapping[str, State], full: bool, waiting: bool = False
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict on one arm and its reasons, each a sentence.

    mismatch: whether units do not follow the weights. full: whether the planned size is reached. waiting:
    whether nothing is decided before that.
    """
    if mismatch:
        return "undecided", ("Units do not follow the weights (SRM): find out why before any figure is used.",)
    if waiting:
        return "undecided", ("The planned size is not reached, and nothing is decided before.",)
    broken = [name for name, state in guardrails.items() if state == "broken"]
    unclear = [name for name, state in guardrails.items() if state == "unclear"]
    stops = [f"The guardrail {name} lost more than its margin." for name in broken]
    if main == "worse":
        stops.insert(0, "The primary metric is worse than in the control.")
    if stops:
        return "stop", tuple(stops)
    reasons = [f"The guardrail {name} may still have lost more than its margin." for name in unclear]
    if main == "better":
        first = "The primary metric is better than in the control."
        if reasons:
            return "undecided", (first, *reasons)
        return "ship", (first, "Every guardrail is within its margin.") if guardrails else (first,)
    left = "the planned size is reached, and only a smaller effect is left to find" if full else "more units may tell"
    return "undecided", (f"The primary metric's interval holds 0; {left}.", *reasons)


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on all arms: ship as soon as one may be, stop when all should be."""
    if "ship" in verdicts:
        return "ship"
    return "stop" if verdicts and all(one == "stop" for one in verdicts) else "undecided"


def _wanted(interval: Interval, better: Better) -> Interval:
    """The interval with the wanted side above 0."""
    low, high = interval
    return (low, high) if better == "higher" else (-high, -low)
