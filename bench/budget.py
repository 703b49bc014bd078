"""How much of a quick run fits into its minutes on this machine: fewer starts, pairs and tokens where it is slow.

The engines are started once and a few plain runs are timed. From these the largest size is chosen whose estimated time
is left. A smaller size costs certainty, which `said` puts into a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product

from bench.cases import QUICK, Size, cases

__all__ = ["SECONDS", "fitting", "said", "seconds_of"]

SECONDS = 300.0
"""What a quick run may take from its first line to its last."""

_PAIRS = (15, 12, 10, 8, 6, 5)
_TOKENS = (64, 32, 16)
_LEAST_TOKENS = 32
"""With fewer tokens per answer, the arrival of requests outweighs the steps that follow."""


def seconds_of(size: Size, step: Mapping[int, float]) -> float:
    """Time to measure one start of a size, without the start. step: seconds per step by how many requests it serves."""
    # The first pair of a case warms it up.
    return sum(2 * (1 + case.pairs) * size.tokens * step[case.concurrency] for case in cases(size))


def fitting(left: float, start: float, step: Mapping[int, float]) -> Size:
    """The largest size that is measured in `left` seconds, the engines having started once in `start` seconds.

    Pairs over all starts count first, then tokens, then the concurrencies beside the headline's. Where nothing fits,
    the size that takes the least, which starts no engine again.
    """
    sizes = [
        Size(starts, pairs, elsewhere, tokens)
        for starts, pairs, elsewhere, tokens in product((2, 1), _PAIRS, (1, 0), _TOKENS)
    ]
    sizes.sort(key=lambda s: (s.tokens >= _LEAST_TOKENS, s.starts * s.pairs, s.tokens, s.elsewhere), reverse=True)

    def takes(size: Size) -> float:
        return (size.starts - 1) * start + size.starts * seconds_of(size, step)

    return next((size for size in sizes if takes(size) <= left), min(sizes, key=takes))


def said(size: Size) -> str:
    """What a size cost in certainty, beside a whole quick run."""
    if size == QUICK:
        return f"whole quick run: {_starts(size)} of {size.pairs} pairs, {size.tokens} tokens per answer"
    wider = math.sqrt(QUICK.starts * QUICK.pairs / (size.starts * size.pairs))
    cut = (
        f"cut to fit {SECONDS:.0f} s on this machine: {_starts(size)} of {size.pairs} pairs, {size.tokens} tokens "
        f"per answer (whole: {QUICK.starts} of {QUICK.pairs}, {QUICK.tokens}); intervals are about {wider:.1f} times "
        "as wide"
    )
    if size.starts == 1:
        cut += ", and do not hold the difference between two starts of one engine, which is 1 to 2 %"
    return cut + ("" if size.elsewhere else "; only the headline's concurrencies were measured")


def _starts(size: Size) -> str:
    return "1 start" if size.starts == 1 else f"{size.starts} starts"
