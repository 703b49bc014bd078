"""Which rows and slots of the tables are free. Pure: it counts, and `tables` writes.

A profile takes a slot, and at each of its layers one piece of consecutive rows. A piece that is given back joins its
free neighbours, so a new version of a profile fits where an old one of the same size was. Pieces never move: a gate
that has decided for a whole answer holds the number of a row.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import StartupError

__all__ = ["FreeRows", "Room", "Seat"]


class FreeRows:
    """The free rows `first` ≤ row < `end` of one table, as pieces [start, end) in ascending order."""

    def __init__(self, first: int, end: int) -> None:
        self._pieces = [(first, end)] if first < end else []

    @property
    def largest(self) -> int:
        """How many rows the largest free piece has."""
        return max((end - start for start, end in self._pieces), default=0)

    def take(self, count: int) -> int:
        """The first of `count` rows, which are no longer free. They come from the smallest piece that holds them.

        Raises:
            ValueError: no piece is large enough.
        """
        start, end = min(
            (piece for piece in self._pieces if piece[1] - piece[0] >= count), key=lambda piece: piece[1] - piece[0]
        )
        self._pieces.remove((start, end))
        if start + count < end:
            insort(self._pieces, (start + count, end))
        return start

    def give(self, start: int, count: int) -> None:
        """Take `count` rows back, that begin at `start`."""
        end = start + count
        for piece in [piece for piece in self._pieces if piece[1] == start or piece[0] == end]:
            self._pieces.remove(piece)
            start, end = min(start, piece[0]), max(end, piece[1])
        insort(self._pieces, (start, end))


@dataclass(frozen=True, slots=True)
class Seat:
    """What one profile has of the tables. rows: layer → (its first row, how many)."""

    slot: int
    rows: Mapping[int, tuple[int, int]]


class Room:
    """The seats of all profiles.

    Args:
        rows: layer → rows of its table, whose row 0 is never given away.
        slots: how many there are; slot 0 and the last are never given away.
    """

    def __init__(self, rows: Mapping[int, int], slots: int) -> None:
        self._rows = {layer: FreeRows(1, count) for layer, count in rows.items()}
        self._slots = list(range(slots - 2, 0, -1))
        self._most_slots = len(self._slots)

    def take(self, name: str, needs: Mapping[int, int]) -> Seat:
        """A seat for a profile. needs: layer → rows.

        Raises:
            StartupError: no slot or too few rows are free; nothing was taken.
        """
        if not self._slots:
            raise StartupError(
                f"no slot is free for profile {name!r} (there are {self._most_slots}); "
                "start with a larger --steering-rows"
            )
        for layer, count in needs.items():
            if count > (free := self._rows[layer].largest):
                raise StartupError(
                    f"profile {name!r} needs {count} rows at layer {layer} and {free} are free in one piece; "
                    f"start with a larger --steering-rows ({count - free} more)"
                )
        return Seat(
            self._slots.pop(), {layer: (self._rows[layer].take(count), count) for layer, count in needs.items()}
        )

    def give(self, seat: Seat) -> None:
        """Take a seat back."""
        self._slots.append(seat.slot)
        for layer, (first, count) in seat.rows.items():
            self._rows[layer].give(first, count)
