"""Holds the figures of a finished demo (out/demo.json) to the targets of this project.

    python .ci/check_demo.py out/demo.json

Prints one sentence for every target that is missed and then exits with 1.
"""

import sys
from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

CONCERNS = {"yes->no": "yes_no", "1->3": "number", "white->black": "other"}
"""The answer type that each steering means to change; the others have to stay as they are."""

LEAST_UNSTEERED_ACCURACY = 95.0
LEAST_MOVED_SHARE = 0.95
LARGEST_CHANGE = 0.5
LEAST_FINE_OVER_COARSE = 1.3
LEAST_THROUGHPUT_RATIO = 0.95


class Figures(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Accuracy(Figures):
    """Percent of questions answered right, by answer type."""

    yes_no: NonNegativeFloat
    number: NonNegativeFloat
    other: NonNegativeFloat


class Answers(Figures):
    """One row of the VQA table: what one steering does to the answers."""

    steering: Literal["none", "yes->no", "1->3", "white->black"]
    kind: Literal["coarse", "fine", "logit_bias"] | None
    layer: int | None
    alpha: float | None
    accuracy: Accuracy
    delta_original: float | None
    delta_target: float | None
    moved_share: float | None
    kv: Literal["shared", "keyed"] | None


class Conversions(Figures):
    alpha: float
    converted: NonNegativeInt
    deleted: NonNegativeInt
    other_facts_changed: NonNegativeFloat


class Gender(Figures):
    total: PositiveInt
    coarse: Conversions
    fine: Conversions


class Throughput(Figures):
    plain: PositiveFloat
    steered: PositiveFloat
    ratio: PositiveFloat
    pairs: list[PositiveFloat] = Field(min_length=1)


class Demo(Figures):
    vqa: list[Answers]
    gender: Gender
    throughput: Throughput


def shortcomings(text: str | bytes) -> list[str]:
    """One sentence for each target that the demo's JSON misses; none when it holds them all."""
    try:
        demo = Demo.model_validate_json(text)
    except ValidationError as error:
        return [f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
    return [*_answers(demo.vqa), *_gender(demo.gender), *_throughput(demo.throughput)]


def _answers(rows: list[Answers]) -> list[str]:
    unsteered = [row for row in rows if row.steering == "none"]
    if len(unsteered) != 1:
        return [f"vqa has {len(unsteered)} rows without steering; one is needed to compare with"]
    baseline = unsteered[0].accuracy.model_dump()
    missed = [
        f"unsteered accuracy on {kind} is {value:.2f}, below {LEAST_UNSTEERED_ACCURACY}"
        for kind, value in baseline.items()
        if value < LEAST_UNSTEERED_ACCURACY
    ]
    last_layer = max((row.layer for row in rows if row.layer is not None), default=None)
    for steering, concerned in CONCERNS.items():
        held = [row for row in rows if (row.steering, row.kind, row.layer) == (steering, "fine", last_layer)]
        if not held:
            missed.append(f"{steering} has no row of kind fine at the last layer")
        for row in held:
            missed.extend(_row(row, concerned, baseline))
    return missed


def _row(row: Answers, concerned: str, baseline: dict[str, float]) -> list[str]:
    where = f"{row.steering}, fine, layer {row.layer}"
    missed = []
    if row.moved_share is None or row.moved_share < LEAST_MOVED_SHARE:
        missed.append(f"{where}: moved_share is {row.moved_share}, below {LEAST_MOVED_SHARE}")
    for kind, value in row.accuracy.model_dump().items():
        change = value - baseline[kind]
        if kind != concerned and round(abs(change), 6) > LARGEST_CHANGE:
            missed.append(f"{where}: accuracy on {kind} changes by {change:+.2f} points, more than {LARGEST_CHANGE}")
    return missed


def _gender(gender: Gender) -> list[str]:
    coarse, fine = gender.coarse.converted, gender.fine.converted
    if fine == 0 or fine < LEAST_FINE_OVER_COARSE * coarse:
        return [f"gender: fine converts {fine} words, fewer than {LEAST_FINE_OVER_COARSE} times the {coarse} of coarse"]
    return []


def _throughput(throughput: Throughput) -> list[str]:
    # Single pairs differ by 9 %. Of five, the largest is where the median's 94 % interval ends.
    if max(throughput.pairs) < LEAST_THROUGHPUT_RATIO:
        return [f"throughput: the ratios of all pairs are below {LEAST_THROUGHPUT_RATIO}: {throughput.pairs}"]
    return []


def main(path: Path) -> int:
    if not path.is_file():
        print(f"{path} is missing; `make demo` writes it")
        return 1
    missed = shortcomings(path.read_bytes())
    for sentence in missed:
        print(f"missed: {sentence}")
    if not missed:
        print(f"{path} holds every target")
    return 1 if missed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python .ci/check_demo.py out/demo.json")
    sys.exit(main(Path(sys.argv[1])))
