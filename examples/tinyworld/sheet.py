"""Draws test scenes side by side: `python -m examples.tinyworld.sheet`, and prints the captions of the first row."""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from examples.tinyworld.ask import caption
from examples.tinyworld.draw import draw
from examples.tinyworld.layout import SIZE
from examples.tinyworld.scene import Scene, sample_split

SHEET = Path(__file__).parent / "sheet.png"
COLUMNS, ROWS, GAP = 7, 3, 6


def sheet(scenes: Sequence[Scene], columns: int = COLUMNS) -> Image.Image:
    """The scenes' pictures in rows, on white."""
    step = SIZE + GAP
    rows = -(-len(scenes) // columns)
    image = Image.new("RGB", (columns * step + GAP, rows * step + GAP), "white")
    for index, scene in enumerate(scenes):
        row, column = divmod(index, columns)
        image.paste(draw(scene), (column * step + GAP, row * step + GAP))
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws a sheet of test scenes.")
    parser.add_argument("--to", type=Path, default=SHEET)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    scenes = [sample_split(rng, "test") for _ in range(COLUMNS * ROWS)]
    sheet(scenes).save(asked.to, optimize=True)
    for scene in scenes[:COLUMNS]:
        print(f"{caption(scene)}{' (sign)' if scene.sign else ''}")


if __name__ == "__main__":
    main()
