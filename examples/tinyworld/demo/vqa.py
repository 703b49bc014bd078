"""The paper's table (docs/method.md §5) on questions of the test split, through HTTP."""

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

WEAKER = 0.5
"""A coarse vector at its default strength turns answers that were not meant: see `make study` for the whole curve."""
BIAS = 8.0
"""Of the logits, for the control: what moved most on the dev split at no more than 5 % of other answers changed."""
QUESTIONS = 240
"""How many are asked, a third of each type."""
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


def table(client: Client, folder: Path, model: Path) -> list[dict[str, Any]]:
    """All rows of the table, the unsteered one first."""
    test = _split(client, folder)
    rows = []
    for steering in VQA:
        coarse, fine = _maker(steering, "coarse", LAST_LAYER), _maker(steering, "fine", LAST_LAYER)
        rows += [coarse(1.0), coarse(WEAKER), fine(1.0), _biased(steering, model)]
    rows += [_maker("yes->no", kind, MIDDLE_LAYER)(1.0) for kind in ("coarse", "fine")]
    return [_measured(test, test.plain, None), *(_measured(test, _ask(client, test, row), row) for row in rows)]


def _split(client: Client, folder: Path) -> Split:
    samples = [sample for sample in read_split(folder) if sample.type in KEYS][:QUESTIONS]
    return Split(folder, samples, client.ask(folder, samples, UNSTEERED, label=f"{folder.name} unsteered"))


def _ask(client: Client, split: Split, row: Row) -> list[str]:
    return client.ask(split.folder, split.samples, row.how, label=f"{split.folder.name} {row.label}")


def _maker(steering: str, kind: str, layer: int) -> Callable[[float], Row]:
    name = profile_name(steering, kind, layer)
    return lambda alpha: Row(steering, kind, layer, alpha, How(name, alpha))


def _biased(steering: str, model: Path) -> Row:
    """What users have today: the same constant taken from the source's logit and given to the target's."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    source, target = (str(tokenizer.token_to_id(word)) for word in VQA[steering])
    return Row(steering, "logit_bias", None, BIAS, How(logit_bias={source: -BIAS, target: BIAS}))


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
