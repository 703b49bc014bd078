"""Where the things of a scene stand: a grid of 4 × 4 cells of 28 px, one thing a cell, so that nothing hides anything.

The top row is left to the sky and the warning sign; an adult fills the three cells of a column below it, a child two;
the held item stands in the cell beside. One cell is 2 × 2 patches of the vision tower, which lets training tell the
tower what each cell holds.
"""

import random
from dataclasses import dataclass

from examples.tinyworld.scene import Scene

GRID = 4
CELL = 28
SIZE = GRID * CELL
"""Side of a picture in pixels."""


@dataclass(frozen=True)
class Placed:
    """A thing in a cell; `dx`, `dy` and `scale` jitter it inside the cell, `count` is the size of its group."""

    kind: str
    color: str | None
    count: int
    row: int
    column: int
    dx: int = 0
    dy: int = 0
    scale: float = 1.0


@dataclass(frozen=True)
class Layout:
    things: tuple[Placed, ...]
    item: Placed | None
    person: Placed | None
    sign: Placed | None


def is_small(person: str) -> bool:
    return person in ("boy", "girl", "child")


def lay_out(scene: Scene) -> Layout:
    """The scene's layout, a function of the scene alone."""
    rng = random.Random(f"{scene.layout}|{scene.description()}")
    free = [(row, column) for row in range(1, GRID) for column in range(GRID)]
    person = item = sign = None
    if scene.person is not None:
        top = 2 if is_small(scene.person) else 1
        column = rng.randrange(GRID)
        person = Placed(scene.person, None, 1, top, column, rng.randint(-2, 2))
        free = [cell for cell in free if cell[1] != column]
        if scene.item is not None:
            side = rng.choice([near for near in (column - 1, column + 1) if 0 <= near < GRID])
            item = Placed(scene.item.kind, scene.item.color, 1, top, side, rng.randint(-1, 1), rng.randint(-2, 2))
            free.remove((top, side))
    if scene.sign:
        sign = Placed("sign", None, 1, 0, rng.randrange(GRID), rng.randint(-2, 2), rng.randint(-1, 1))
    rng.shuffle(free)
    things = []
    for group in scene.groups:
        for _ in range(group.count):
            row, column = free.pop()
            jitter = rng.randint(-3, 3), rng.randint(-3, 3), rng.uniform(0.9, 1.1)
            things.append(Placed(group.shape, group.color, group.count, row, column, *jitter))
    return Layout(tuple(things), item, person, sign)
