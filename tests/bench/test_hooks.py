"""What the two sides gave is compared question by question, and a difference is no result."""

from __future__ import annotations

import numpy as np
import pytest

from bench.hooks import measure
from bench.ours import Case, Run

ANSWERS = Case("answers", "answers", 2, steered=True, target=10.0)
ROWS = Case("rows", "rows", 2, steered=False)
TOKENS = [[1, 2], [3, 4], [5, 6], [7, 8]]
STREAM = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)


def served(seconds: float = 1.0) -> Run:
    return Run(4, seconds, TOKENS, {3: STREAM})


def hooked(first: int, tokens: list[list[int]], rows: np.ndarray, seconds: float = 1.0) -> Run:
    return Run(max(len(tokens), 1), seconds, tokens, {3: rows}, first)


def test_the_ratio_is_that_of_the_rates_and_the_target_is_held_by_the_low_end() -> None:
    found = measure(ANSWERS, 3, lambda: hooked(2, TOKENS[2:], STREAM[4:], seconds=10.0), served)
    assert (found["ratio"], found["interval"], found["held"]) == (pytest.approx(20), [pytest.approx(20)] * 2, True)
    assert found["compared"] == 6
    assert not measure(ANSWERS, 3, lambda: hooked(2, TOKENS[2:], STREAM[4:], seconds=1.0), served)["held"]


def test_answers_are_compared_with_those_to_the_same_questions() -> None:
    with pytest.raises(SystemExit, match="only 0 of 6"):
        measure(ANSWERS, 3, lambda: hooked(1, TOKENS[2:], STREAM[4:]), served)


def test_rows_are_compared_with_those_of_the_same_questions() -> None:
    assert measure(ROWS, 3, lambda: hooked(1, [], STREAM[2:6]), served)["compared"] == 12
    with pytest.raises(SystemExit, match="rows differ"):
        measure(ROWS, 3, lambda: hooked(2, [], STREAM[2:6]), served)
