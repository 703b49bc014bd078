"""The paper's table (docs/method.md §5) on the test split, through HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from examples.tinyworld.ask import Sample
from examples.tinyworld.data import read_split
from examples.tinyworld.demo.client import UNSTEERED, Client, How
from examples.tinyworld.demo.profiles import LAST_LAYER, MIDDLE_LAYER, VQA, profile_name
from trimtab.offline.steering.operating_point import Point, best

ALPHAS = (0.2, 0.35, 0.5, 0.7, 0.85, 1.0)
MIDDLE_ALPHAS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
BIASES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
QUESTIONS = {"dev": 180, "test": 780}
"""How many questions of a split are asked, a third of each type: as many as six minutes on two cores hold."""
KEYS = {"yes/no": "yes_no", "number": "number", "other": "other"}


@dataclass(frozen=True)
class Split:
    """The questions of a split and what the unsteered model answers."""

    folder: Path
    samples: list[Sample]
    plain: list[str]


@dataclass(frozen=True)
class Row:
    """One line of the table before it is measured."""

    steering: str
    kind: str
    layer: int | None
    strength: float
    how: How

    @property
    def label(self) -> str:
        return f"{self.steering} {self.kind} {self.strength:g}"


def table(client: Client, data: Path, model: Path) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, float]]]]:
    """All rows of the table, the unsteered one first, and the dev curves behind the chosen strengths."""
    dev, test = (_split(client, data / name) for name in ("dev", "test"))
    rows: list[Row] = []
    curves: dict[str, list[dict[str, float]]] = {}

    def chosen(make: Callable[[float], Row], strengths: Sequence[float]) -> Row:
        curve = [_point(client, dev, make(strength)) for strength in strengths]
        row = make(best(curve).strength)
        where = f" layer {row.layer}" if row.layer is not None else ""
        curves[f"{row.steering} {row.kind}{where}"] = [point.as_json() for point in curve]
        return row

    for steering in VQA:
        coarse, fine = _maker(steering, "coarse", LAST_LAYER), _maker(steering, "fine", LAST_LAYER)
        rows += [coarse(1.0), chosen(coarse, ALPHAS), fine(1.0), chosen(_biaser(steering, model), BIASES)]
    for kind in ("coarse", "fine"):
        middle = _maker("yes->no", kind, MIDDLE_LAYER)
        rows += [middle(1.0), chosen(middle, MIDDLE_ALPHAS)]
    distinct = list({row.label + str(row.layer): row for row in rows}.values())
    measured = [_measured(test, test.plain, None)]
    measured += [_measured(test, _ask(client, test, row), row) for row in distinct]
    return measured, curves


def _split(client: Client, folder: Path) -> Split:
    samples = [sample for sample in read_split(folder) if sample.type in KEYS][: QUESTIONS[folder.name]]
    return Split(folder, samples, client.ask(folder, samples, UNSTEERED, label=f"{folder.name} unsteered"))


def _ask(client: Client, split: Split, row: Row) -> list[str]:
    return client.ask(split.folder, split.samples, row.how, label=f"{split.folder.name} {row.label}")


def _maker(steering: str, kind: str, layer: int) -> Callable[[float], Row]:
    name = profile_name(steering, kind, layer)
    return lambda alpha: Row(steering, kind, layer, alpha, How(name, alpha))


def _biaser(steering: str, model: Path) -> Callable[[float], Row]:
    """What users have today: the same constant taken from the source's logit and given to the target's."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    source, target = (str(tokenizer.token_to_id(word)) for word in VQA[steering])
    return lambda b: Row(steering, "logit_bias", None, b, How(logit_bias={source: -b, target: b}))


def _point(client: Client, dev: Split, row: Row) -> Point:
    source, target = VQA[row.steering]
    pairs = list(zip(dev.plain, _ask(client, dev, row), strict=True))
    others = [now != plain for plain, now in pairs if plain != source]
    return Point(row.strength, _moved(pairs, source, target), sum(others) / len(others))


def _moved(pairs: Sequence[tuple[str, str]], source: str, target: str) -> float:
    """Answers equal to the source that become the target ÷ answers equal to the source."""
    sources = [now for plain, now in pairs if plain == source]
    return sources.count(target) / len(sources) if sources else 0.0


def _measured(test: Split, answers: list[str], row: Row | None) -> dict[str, Any]:
    right: dict[str, list[bool]] = {key: [] for key in KEYS.values()}
    for sample, answer in zip(test.samples, answers, strict=True):
        right[KEYS[sample.type]].append(answer == sample.answer)
    accuracy = {key: 100 * sum(hits) / len(hits) for key, hits in right.items()}
    if row is None:
        return {"steering": "none", "kind": None, "layer": None, "alpha": None, "accuracy": accuracy,
                "delta_original": 0, "delta_target": 0, "moved_share": None, "kv": None}  # fmt: skip
    source, target = VQA[row.steering]
    return {
        "steering": row.steering,
        "kind": row.kind,
        "layer": row.layer,
        "alpha": row.strength,
        "accuracy": accuracy,
        "delta_original": answers.count(source) - test.plain.count(source),
        "delta_target": answers.count(target) - test.plain.count(target),
        "moved_share": _moved(list(zip(test.plain, answers, strict=True)), source, target),
        "kv": None if row.layer is None else "shared" if row.layer == LAST_LAYER else "keyed",
    }
