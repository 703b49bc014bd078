"""What a picture of the world holds, before it is drawn or asked about.

A scene is a place, at most one person (who may hold an item), one or two groups of like things, and perhaps a warning
sign. Its description is everything that can be asked about; `layout` only says where things stand. A hash of the
description decides the split, so no test scene is a training scene drawn in another way.
"""

import hashlib
import random
from dataclasses import dataclass
from typing import Literal, get_args

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

PLACES = ("beach", "forest", "street", "snow", "room")
GENDERED_PEOPLE = ("man", "woman", "boy", "girl")
NEUTRAL_PEOPLE = ("person", "child")
PEOPLE = GENDERED_PEOPLE + NEUTRAL_PEOPLE
ITEMS = ("umbrella", "kite", "flag", "bag")
COLORS = ("red", "green", "blue", "yellow", "white", "black", "orange", "purple")
SHAPES = ("ball", "box", "cone", "star")
MOST = 4
"""The largest number of things in a group."""


@dataclass(frozen=True)
class Item:
    kind: str
    color: str


@dataclass(frozen=True)
class Group:
    count: int
    color: str
    shape: str


@dataclass(frozen=True)
class Scene:
    """One picture's content; two groups never share a shape or a color, and only a person holds an item."""

    place: str
    person: str | None
    item: Item | None
    groups: tuple[Group, ...]
    sign: bool
    layout: int

    def description(self) -> str:
        """The canonical text of all that can be asked about: equal for two drawings of one scene."""
        item = f"{self.item.color} {self.item.kind}" if self.item else "-"
        groups = "+".join(f"{group.count} {group.color} {group.shape}" for group in self.groups)
        return f"{self.place}|{self.person or '-'}|{item}|{groups}|{'sign' if self.sign else '-'}"


def split_of(scene: Scene) -> Split:
    """The split that owns the scene: 90 % train, 5 % dev, 5 % test by SHA-256 of its description."""
    part = int.from_bytes(hashlib.sha256(scene.description().encode()).digest()[:8], "big") % 100
    return "test" if part < 5 else "dev" if part < 10 else "train"


def sample_scene(rng: random.Random) -> Scene:
    person = rng.choice(PEOPLE) if rng.random() < 0.8 else None
    item = Item(rng.choice(ITEMS), rng.choice(COLORS)) if person and rng.random() < 0.8 else None
    kinds = rng.choice((1, 2, 2))
    shapes = sorted(rng.sample(SHAPES, kinds), key=SHAPES.index)
    colors = rng.sample(COLORS, kinds)
    groups = tuple(Group(rng.randint(1, MOST), color, shape) for shape, color in zip(shapes, colors, strict=True))
    return Scene(rng.choice(PLACES), person, item, groups, rng.random() < 0.3, rng.getrandbits(32))


def sample_split(rng: random.Random, split: Split) -> Scene:
    """A scene of the split, by drawing scenes until one belongs to it."""
    while True:
        scene = sample_scene(rng)
        if split_of(scene) == split:
            return scene
