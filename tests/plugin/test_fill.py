"""Rows that are left standing from the step before are those that this step would have written."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.plugin.batch import token_rows
from trimtab.plugin.request import Steering
from trimtab.plugin.table import TokenRows

SLOTS = {"a": 1, "b": 2}
GIVEN = [
    None,
    *(Steering("p", digest, alpha, first, None) for digest in SLOTS for alpha in (0.5, 1.0) for first in (0, 3)),
]

# The requests of a step are one of two teams, so that steps repeat; each has tokens before the step and tokens in it.
teams = st.lists(st.sampled_from(GIVEN), min_size=1, max_size=2)
tokens = st.tuples(st.integers(0, 5), st.sampled_from([1, 1, 1, 2]))
steps = st.lists(st.tuples(st.booleans(), st.tuples(tokens, tokens)), min_size=2, max_size=8)


@settings(max_examples=400)
@given(teams, teams, steps)
def test_every_step_has_its_own_rows_whatever_came_before(
    home: list[Steering | None],
    guests: list[Steering | None],
    played: list[tuple[bool, tuple[tuple[int, int], tuple[int, int]]]],
) -> None:
    rows = TokenRows(16)
    for at_home, counts in played:
        steerings = home if at_home else guests
        computed, scheduled = np.array(counts, dtype=np.int32)[: len(steerings)].T
        rows.fill(steerings, SLOTS, computed, scheduled)
        slot, alpha = token_rows(steerings, SLOTS, computed, scheduled)
        assert rows.slot.numpy()[: len(slot)].tolist() == slot.tolist()
        assert not rows.slot.numpy()[len(slot) :].any()
        assert np.array_equal(rows.alpha.numpy()[: len(slot)][slot != 0], alpha[slot != 0])
