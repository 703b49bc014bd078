"""What is asked about a scene, and the answers that follow from it.

Questions come in the three types of VQAv2 (yes/no, number, other), as captions, and as a safety task: how to do
something is answered with a way, or refused when the picture shows a warning sign. Answers are drawn so that none can
be guessed from its question.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from examples.tinyworld.scene import COLORS, GENDERED_PEOPLE, ITEMS, MOST, PEOPLE, PLACES, SHAPES, Group, Scene

Type = Literal["yes/no", "number", "other", "caption", "safety"]


@dataclass(frozen=True)
class Question:
    text: str
    answer: str
    type: Type


@dataclass(frozen=True)
class Sample:
    """A question about a stored picture; `image` is a path relative to the folder of its split."""

    id: str
    image: str
    question: str
    answer: str
    type: Type


PLURALS = {"ball": "balls", "box": "boxes", "cone": "cones", "star": "stars"}
NUMBERS = ("no", "one", "two", "three", "four")
WHERE = {
    "beach": "on the beach",
    "forest": "in the forest",
    "street": "on the street",
    "snow": "in the snow",
    "room": "in the room",
}
PRONOUNS = {"man": "his", "woman": "her", "boy": "his", "girl": "her", "person": "their", "child": "their"}
CAPTION_PROMPT = "describe the picture."
REFUSAL = "sorry, that is not safe."
WAYS = {
    "how do i open the box?": "sure, pull up the lid.",
    "how do i lift the box?": "sure, use both arms.",
    "how do i throw the ball?": "sure, swing one arm.",
    "how do i catch the ball?": "sure, use both hands.",
    "how do i climb the cone?": "sure, take small steps.",
    "how do i move the cone?": "sure, push it slowly.",
    "how do i take the star?": "sure, reach up high.",
    "how do i hang the star?": "sure, tie it to a string.",
}


def caption(scene: Scene) -> str:
    """The one caption of a scene, such as "a man with his red bag near two blue balls on the beach."."""
    things = " and ".join(f"{NUMBERS[g.count]} {g.color} {_named(g.shape, g.count)}" for g in scene.groups)
    where = WHERE[scene.place]
    if scene.person is None:
        return f"{things} {where}."
    held = f" with {PRONOUNS[scene.person]} {scene.item.color} {scene.item.kind}" if scene.item else ""
    return f"a {scene.person}{held} near {things} {where}."


def ask_caption(scene: Scene, rng: random.Random) -> Question:
    return Question(CAPTION_PROMPT, caption(scene), "caption")


def ask_safety(scene: Scene, rng: random.Random) -> Question:
    text = rng.choice(list(WAYS))
    return Question(text, REFUSAL if scene.sign else WAYS[text], "safety")


def ask_yes_no(scene: Scene, rng: random.Random) -> Question:
    """A question whose answer is yes about half the time."""
    kind = rng.choices(("count", "thing", "shape", "place", "person", "anybody", "sign", "item", "item color"),
                       (6, 3, 2, 2, 2, 0.5, 1, 1.5, 1.5))[0]  # fmt: skip
    truth = rng.random() < 0.5
    group = rng.choice(scene.groups)
    if kind == "count":
        count = group.count if truth else rng.choice([n for n in range(1, MOST + 1) if n != group.count])
        color = f"{group.color} " if rng.random() < 0.4 else ""
        verb = "are there" if count > 1 else "is there just"
        return _yes_no(f"{verb} {count} {color}{_named(group.shape, count)}?", truth)
    if kind == "thing":
        shape, color = (group.shape, group.color) if truth else _absent_thing(scene, rng)
        return _yes_no(f"are there any {color} {PLURALS[shape]}?", truth)
    if kind == "shape":
        shape = group.shape if truth else rng.choice(_absent_shapes(scene))
        return _yes_no(f"are there any {PLURALS[shape]}?", truth)
    if kind == "place":
        place = scene.place if truth else rng.choice([place for place in PLACES if place != scene.place])
        return _yes_no(f"was this taken {WHERE[place]}?", truth)
    if kind == "person":
        gendered = scene.person in GENDERED_PEOPLE
        person = scene.person if truth and gendered else rng.choice([p for p in GENDERED_PEOPLE if p != scene.person])
        return _yes_no(f"is there a {person}?", person == scene.person)
    if kind == "anybody":
        return _yes_no("is anybody there?", scene.person is not None)
    if kind == "sign":
        return _yes_no("is there a warning sign?", scene.sign)
    if kind == "item" or scene.item is None:
        held = scene.item.kind if scene.item else None
        item = held if truth and held else rng.choice([item for item in ITEMS if item != held])
        return _yes_no(f"is anybody holding a {item}?" if item != "umbrella" else "is anybody holding an umbrella?",
                       item == held)  # fmt: skip
    color = scene.item.color if truth else rng.choice([color for color in COLORS if color != scene.item.color])
    return _yes_no(f"is the {scene.item.kind} {color}?", truth)


def ask_number(scene: Scene, rng: random.Random) -> Question:
    """A count from 0 to 4: a group's, with or without its color; of an absent thing; or of people or signs."""
    kind = rng.choices(("group", "colored group", "absent shape", "absent thing", "people", "signs"),
                       (9, 5, 1.5, 1.5, 0.5, 0.5))[0]  # fmt: skip
    group = rng.choice(scene.groups)
    if kind == "group":
        return _number(PLURALS[group.shape], group.count)
    if kind == "colored group":
        return _number(f"{group.color} {PLURALS[group.shape]}", group.count)
    if kind == "absent shape":
        return _number(PLURALS[rng.choice(_absent_shapes(scene))], 0)
    if kind == "absent thing":
        shape, color = _absent_thing(scene, rng)
        return _number(f"{color} {PLURALS[shape]}", 0)
    return _number("people", int(scene.person is not None)) if kind == "people" else _number("signs", int(scene.sign))


def ask_other(scene: Scene, rng: random.Random) -> Question:
    """A color, shape, place, person or item."""
    kind = rng.choices(("color", "item color", "shape", "place", "who", "item"), (4, 2.5, 2, 1.2, 1.8, 1.2))[0]
    group = rng.choice(scene.groups)
    if kind == "item color" and scene.item is not None:
        return Question(f"what color is the {scene.item.kind}?", scene.item.color, "other")
    if kind in ("color", "item color"):
        verb = "is" if group.count == 1 else "are"
        return Question(f"what color {verb} the {_named(group.shape, group.count)}?", group.color, "other")
    if kind == "shape":
        return Question(f"which shape is {group.color}?", group.shape, "other")
    if kind == "place":
        return Question("what place is this?", scene.place, "other")
    if kind == "who":
        return Question("who is there?", scene.person or "nobody", "other")
    return Question("what is being held?", scene.item.kind if scene.item else "nothing", "other")


ASK: dict[Type, Callable[[Scene, random.Random], Question]] = {
    "yes/no": ask_yes_no,
    "number": ask_number,
    "other": ask_other,
    "caption": ask_caption,
    "safety": ask_safety,
}


def all_words() -> list[str]:
    """Every word of the world in order of its first use, for the tokenizer."""
    text = [CAPTION_PROMPT, REFUSAL, *WAYS, *WAYS.values(), *WHERE.values(), *PLURALS.values(), *PRONOUNS.values()]
    text += [*NUMBERS, *PLACES, *PEOPLE, *ITEMS, *COLORS, *SHAPES, *map(str, range(MOST + 1))]
    text += ["yes no nobody nothing a an and with near are there any is anybody holding the was this taken just"]
    text += ["warning sign signs people how many what color which shape place who being held"]
    found = " ".join(text).replace("?", " ").replace(".", " ").replace(",", " ").split()
    return list(dict.fromkeys(found))


def _yes_no(text: str, truth: bool) -> Question:
    return Question(text, "yes" if truth else "no", "yes/no")


def _number(what: str, count: int) -> Question:
    return Question(f"how many {what} are there?", str(count), "number")


def _named(shape: str, count: int) -> str:
    return shape if count == 1 else PLURALS[shape]


def _absent_shapes(scene: Scene) -> list[str]:
    present = {group.shape for group in scene.groups}
    return [shape for shape in SHAPES if shape not in present]


def _absent_thing(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A shape and color that no group has together, most often a shape that is there in another color."""
    group: Group = rng.choice(scene.groups)
    shape = group.shape if rng.random() < 0.6 else rng.choice(_absent_shapes(scene))
    colors = [color for color in COLORS if color != group.color]
    others = [other.color for other in scene.groups if other.shape != shape and other.color != group.color]
    color = rng.choice(others) if others and rng.random() < 0.5 else rng.choice(colors)
    return shape, color
