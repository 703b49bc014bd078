"""Rows and slots are given to one profile at a time, and all that was given back can be given again."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trimtab.plugin.errors import StartupError
from trimtab.plugin.model.room import FreeRows, Room, Seat

ROWS, SLOTS = {0: 9, 1: 17}, 6
NEEDS = st.dictionaries(st.sampled_from(sorted(ROWS)), st.integers(1, 8), min_size=1)


class Seats(RuleBasedStateMachine):
    """Profiles come and go in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.room = Room(ROWS, SLOTS)
        self.seats: list[Seat] = []

    def taken(self, layer: int) -> list[int]:
        return sorted(
            row
            for seat in self.seats
            for first, count in [seat.rows.get(layer, (0, 0))]
            for row in range(first, first + count)
        )

    @rule(needs=NEEDS)
    def come(self, needs: dict[int, int]) -> None:
        before = [self.room._rows[layer].largest for layer in ROWS]
        try:
            seat = self.room.take("p", needs)
        except StartupError:
            assert [self.room._rows[layer].largest for layer in ROWS] == before
            assert len(self.seats) == SLOTS - 2 or any(needs.get(layer, 0) > self._longest_gap(layer) for layer in ROWS)
        else:
            assert {layer: count for layer, (_, count) in seat.rows.items()} == needs
            self.seats.append(seat)

    @precondition(lambda self: self.seats)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        self.room.give(self.seats.pop(data.draw(st.integers(0, len(self.seats) - 1))))

    @invariant()
    def nothing_is_shared(self) -> None:
        slots = [seat.slot for seat in self.seats]
        assert len(set(slots)) == len(slots)
        assert set(slots) <= set(range(1, SLOTS - 1))
        for layer, rows in ROWS.items():
            taken = self.taken(layer)
            assert len(set(taken)) == len(taken)
            assert set(taken) <= set(range(1, rows))

    @invariant()
    def the_largest_free_piece_is_the_longest_gap(self) -> None:
        for layer in ROWS:
            assert self.room._rows[layer].largest == self._longest_gap(layer)

    def _longest_gap(self, layer: int) -> int:
        bounds = [0, *self.taken(layer), ROWS[layer]]
        return max(after - before - 1 for before, after in pairwise(bounds))


TestSeats = Seats.TestCase
TestSeats.settings = hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.permutations(range(6)))
def test_whatever_the_order_in_which_pieces_come_back_they_join(order: list[int]) -> None:
    free = FreeRows(1, 13)
    pieces = [(free.take(2), 2) for _ in range(6)]
    assert free.largest == 0
    for number in order:
        free.give(*pieces[number])
    assert free.largest == 12


def test_the_smallest_piece_that_fits_is_taken() -> None:
    free = FreeRows(1, 21)
    assert [free.take(count) for count in (3, 1, 8, 1)] == [1, 4, 5, 13]
    free.give(1, 3)  # free are 3 in front, 7 at the end, and then 8 between them
    free.give(5, 8)
    assert [free.take(count) for count in (3, 7, 8)] == [1, 14, 5]


def test_a_refusal_says_how_many_more_rows_are_needed() -> None:
    room = Room({0: 4, 3: 9}, 4)
    with pytest.raises(StartupError, match=r"'p' needs 12 rows at layer 3 and 8 are free in one piece; .* \(4 more\)"):
        room.take("p", {0: 3, 3: 12})
    assert room.take("p", {0: 3, 3: 8}).rows == {0: (1, 3), 3: (1, 8)}
