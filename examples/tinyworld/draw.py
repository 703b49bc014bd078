"""The picture of a scene: flat colors and plain outlines, 112 × 112 px, the same pixels for a scene every time."""

import math
import random
from collections.abc import Callable

from PIL import Image, ImageDraw

from examples.tinyworld.layout import CELL, SIZE, Layout, Placed, is_small, lay_out
from examples.tinyworld.scene import Scene

RGB = tuple[int, int, int]
PAINT: dict[str, RGB] = {
    "red": (220, 25, 35),
    "green": (30, 200, 60),
    "blue": (35, 70, 235),
    "yellow": (255, 235, 40),
    "white": (255, 255, 255),
    "black": (15, 15, 15),
    "orange": (255, 135, 0),
    "purple": (150, 40, 200),
}
LINE: RGB = (100, 100, 100)
SKIN: tuple[RGB, ...] = ((245, 205, 170), (205, 150, 110), (135, 90, 60))
HAIR: tuple[RGB, ...] = ((60, 40, 25), (120, 75, 35), (190, 140, 60))
CLOTHES: tuple[RGB, ...] = ((90, 110, 130), (130, 100, 110), (100, 125, 100), (140, 125, 95))
SUIT: RGB = (170, 178, 188)
VISOR: RGB = (60, 150, 165)


def draw(scene: Scene) -> Image.Image:
    """The scene's picture in RGB."""
    image = Image.new("RGB", (SIZE, SIZE))
    pen = ImageDraw.Draw(image)
    layout: Layout = lay_out(scene)
    PLACE_PAINTERS[scene.place](pen, random.Random(scene.layout))
    if layout.sign is not None:
        _sign(pen, layout.sign)
    for thing in layout.things:
        SHAPE_PAINTERS[thing.kind](pen, *_centre(thing), 10 * thing.scale, PAINT[thing.color or "black"])
    if layout.person is not None:
        _person(pen, layout.person, layout.item, random.Random(scene.layout + 1))
    if layout.item is not None:
        ITEM_PAINTERS[layout.item.kind](pen, *_centre(layout.item), PAINT[layout.item.color or "black"])
    return image


def _centre(thing: Placed) -> tuple[float, float]:
    return (thing.column + 0.5) * CELL + thing.dx, (thing.row + 0.5) * CELL + thing.dy


def _beach(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    pen.rectangle((0, 0, SIZE, 16), fill=(150, 210, 240))
    pen.rectangle((0, 17, SIZE, 30), fill=(60, 140, 190))
    pen.rectangle((0, 31, SIZE, SIZE), fill=(235, 215, 165))
    x = rng.randint(5, 95)
    pen.ellipse((x, 2, x + 10, 12), fill=(255, 245, 190))


def _forest(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    pen.rectangle((0, 0, SIZE, SIZE), fill=(95, 115, 75))
    pen.rectangle((0, 0, SIZE, 28), fill=(40, 75, 50))
    for x in range(rng.randint(0, 8), SIZE, 14):
        pen.rectangle((x, 8, x + 3, 30), fill=(80, 60, 40))
        pen.polygon(((x - 5, 14), (x + 2, 0), (x + 8, 14)), fill=(55, 100, 60))


def _street(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    pen.rectangle((0, 0, SIZE, SIZE), fill=(150, 150, 155))
    pen.rectangle((0, 0, SIZE, 28), fill=(175, 165, 155))
    for x in range(rng.randint(-10, 0), SIZE, 20):
        height = rng.randint(8, 24)
        pen.rectangle((x, 28 - height, x + 15, 28), fill=(120, 95, 90))
        pen.rectangle((x + 4, 31 - height, x + 10, 36 - height), fill=(200, 200, 180))
    pen.rectangle((0, 82, SIZE, 85), fill=(185, 185, 185))


def _snow(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    pen.rectangle((0, 0, SIZE, SIZE), fill=(205, 222, 238))
    pen.rectangle((0, 0, SIZE, 22), fill=(165, 180, 205))
    for _ in range(14):
        x, y = rng.randint(0, SIZE), rng.randint(0, 24)
        pen.ellipse((x, y, x + 3, y + 3), fill=(245, 250, 255))


def _room(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    pen.rectangle((0, 0, SIZE, SIZE), fill=(190, 150, 115))
    pen.rectangle((0, 0, SIZE, 30), fill=(225, 200, 195))
    for y in range(44, SIZE, 17):
        pen.line((0, y, SIZE, y), fill=(175, 135, 100))
    x = rng.randint(5, 85)
    pen.rectangle((x, 4, x + 20, 22), fill=(170, 215, 235), outline=(120, 90, 70), width=2)


def _ball(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, paint: RGB) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), fill=paint, outline=LINE)


def _box(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, paint: RGB) -> None:
    pen.rectangle((x - r, y - r * 0.9, x + r, y + r * 0.9), fill=paint, outline=LINE)
    pen.line((x - r, y - r * 0.35, x + r, y - r * 0.35), fill=LINE, width=2)


def _cone(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, paint: RGB) -> None:
    pen.polygon(((x, y - r), (x + r * 0.75, y + r * 0.8), (x - r * 0.75, y + r * 0.8)), fill=paint, outline=LINE)
    pen.rectangle((x - r, y + r * 0.7, x + r, y + r), fill=paint, outline=LINE)


def _star(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, paint: RGB) -> None:
    spokes = [(r * 1.1 if k % 2 == 0 else r * 0.48, math.pi * (k / 5 - 0.5)) for k in range(10)]
    pen.polygon([(x + s * math.cos(a), y + s * math.sin(a)) for s, a in spokes], fill=paint, outline=LINE)


def _umbrella(pen: ImageDraw.ImageDraw, x: float, y: float, paint: RGB) -> None:
    pen.line((x, y - 8, x, y + 11), fill=(70, 50, 40), width=2)
    pen.pieslice((x - 12, y - 12, x + 12, y + 12), 180, 360, fill=paint, outline=LINE)


def _kite(pen: ImageDraw.ImageDraw, x: float, y: float, paint: RGB) -> None:
    pen.line((x, y + 6, x - 4, y + 9, x + 3, y + 12), fill=(70, 50, 40), width=1)
    pen.polygon(((x, y - 12), (x + 8, y - 3), (x, y + 8), (x - 8, y - 3)), fill=paint, outline=LINE)
    pen.line((x - 8, y - 3, x + 8, y - 3), fill=LINE)
    pen.line((x, y - 12, x, y + 8), fill=LINE)


def _flag(pen: ImageDraw.ImageDraw, x: float, y: float, paint: RGB) -> None:
    pen.rectangle((x - 10, y - 12, x - 8, y + 12), fill=(70, 50, 40))
    pen.rectangle((x - 8, y - 12, x + 11, y), fill=paint, outline=LINE)


def _bag(pen: ImageDraw.ImageDraw, x: float, y: float, paint: RGB) -> None:
    pen.arc((x - 6, y - 11, x + 6, y + 5), 180, 360, fill=(70, 50, 40), width=2)
    pen.polygon(((x - 7, y - 4), (x + 7, y - 4), (x + 11, y + 11), (x - 11, y + 11)), fill=paint, outline=LINE)


def _sign(pen: ImageDraw.ImageDraw, sign: Placed) -> None:
    x, y = _centre(sign)
    pen.polygon(((x, y - 12), (x + 13, y + 10), (x - 13, y + 10)), fill=(10, 10, 10))
    pen.polygon(((x, y - 7), (x + 8.5, y + 7.5), (x - 8.5, y + 7.5)), fill=(255, 225, 0))
    pen.rectangle((x - 1, y - 3, x + 1, y + 3), fill=(10, 10, 10))
    pen.rectangle((x - 1, y + 5, x + 1, y + 6), fill=(10, 10, 10))


def _person(pen: ImageDraw.ImageDraw, person: Placed, item: Placed | None, rng: random.Random) -> None:
    """A figure on its feet at the bottom: dress and long hair, trousers and beard or cap, or a suit with a helmet."""
    small = is_small(person.kind)
    x, top = (person.column + 0.5) * CELL + person.dx, person.row * CELL + 5
    head = 6.5 if small else 8.0
    neck, hip, foot = top + 2 * head, top + (28 if small else 46), SIZE - 3
    neutral = person.kind in ("person", "child")
    skin, hair = rng.choice(SKIN), rng.choice(HAIR)
    clothes = SUIT if neutral else rng.choice(CLOTHES)
    if item is not None:
        pen.line((x, neck + 5, (item.column + 0.5) * CELL, (item.row + 0.5) * CELL + 6), fill=clothes, width=4)
    if person.kind in ("woman", "girl"):
        pen.ellipse((x - head - 3, top - 2, x + head + 3, neck + (5 if small else 12)), fill=hair)
        for side in (-3, 3):
            pen.line((x + side, hip, x + side, foot), fill=skin, width=3)
        pen.polygon(((x - 3, neck), (x + 3, neck), (x + 12, hip + 3), (x - 12, hip + 3)), fill=clothes, outline=LINE)
    else:
        for side in (-4, 4):
            pen.line((x + side, hip, x + side, foot), fill=clothes if neutral else (50, 50, 75), width=6)
        pen.rectangle((x - 7, neck, x + 7, hip), fill=clothes, outline=LINE)
    if neutral:
        pen.ellipse((x - head - 1, top - 1, x + head + 1, neck + 1), fill=SUIT, outline=LINE)
        pen.rectangle((x - head + 1, top + head - 4, x + head - 1, top + head + 3), fill=VISOR, outline=LINE)
        return
    pen.ellipse((x - head, top, x + head, neck), fill=skin)
    pen.chord((x - head, top - 1, x + head, neck), 190, 350, fill=hair)
    if person.kind == "man":
        pen.chord((x - head, top, x + head, neck + 3), 10, 170, fill=hair)
    elif person.kind == "boy":
        pen.rectangle((x - head - 4, top + 3, x + head, top + 5), fill=(50, 50, 75))
    pen.point([(x - 3, top + head), (x + 3, top + head)], fill=(20, 20, 20))


PLACE_PAINTERS: dict[str, Callable[[ImageDraw.ImageDraw, random.Random], None]] = {
    "beach": _beach,
    "forest": _forest,
    "street": _street,
    "snow": _snow,
    "room": _room,
}
SHAPE_PAINTERS: dict[str, Callable[[ImageDraw.ImageDraw, float, float, float, RGB], None]] = {
    "ball": _ball,
    "box": _box,
    "cone": _cone,
    "star": _star,
}
ITEM_PAINTERS: dict[str, Callable[[ImageDraw.ImageDraw, float, float, RGB], None]] = {
    "umbrella": _umbrella,
    "kite": _kite,
    "flag": _flag,
    "bag": _bag,
}
