"""The sheet of scenes in the README."""

import random

from examples.tinyworld.draw import draw
from examples.tinyworld.layout import SIZE
from examples.tinyworld.scene import sample_scene
from examples.tinyworld.sheet import GAP, sheet


def test_a_sheet_shows_every_scene_once_in_order() -> None:
    rng = random.Random(0)
    scenes = [sample_scene(rng) for _ in range(5)]
    image = sheet(scenes, columns=2)
    assert image.size == (2 * (SIZE + GAP) + GAP, 3 * (SIZE + GAP) + GAP)
    for index, scene in enumerate(scenes):
        left, top = index % 2 * (SIZE + GAP) + GAP, index // 2 * (SIZE + GAP) + GAP
        assert image.crop((left, top, left + SIZE, top + SIZE)).tobytes() == draw(scene).tobytes()
