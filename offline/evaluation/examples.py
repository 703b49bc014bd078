"""Which answers of a steered run are shown: broken ones first, then each kind of change, with their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..concepts.pictures import thumbnails
from ..findings import Example
from ..states.prompts import shown as shown_question
from .benchmark import Answers, Benchmark
from .effect import broken

__all__ = ["Examples", "Picked", "picked", "with_pictures"]

MOST = 12
"""Examples that a finding holds."""
THUMBNAILS = "thumbnails"
BROKEN = "broken"


@dataclass(frozen=True)
class Picked:
    """An example, and the picture of its sample."""

    sample: str
    image: Path | None
    example: Example


@dataclass(frozen=True)
class Examples:
    """shown: at most `MOST`. broken: the ids of all answers that are broken, shown or not."""

    shown: tuple[Picked, ...]
    broken: tuple[str, ...]


def picked(benchmark: Benchmark, prompt: str, before: Answers, after: Answers, meant: Mapping[str, str]) -> Examples:
    """The first samples of each sort: broken, turned, off target or strayed; of equal pairs of answers only one."""
    sorts: dict[str, list[str]] = {BROKEN: [], "turned": [], "not meant": []}
    for sample in benchmark.samples:
        one = sample.id
        if before.get(one) is None or after.get(one) is None or before[one] == after[one]:
            continue
        old, new = benchmark.label(one, before[one]), benchmark.label(one, after[one])
        turned = meant.get(old) == new
        hurt = broken(before[one], after[one], turned, benchmark.same)
        sorts[BROKEN if hurt else "turned" if turned else "not meant"].append(one)
    samples = {one.id: one for one in benchmark.samples}
    shown: dict[tuple[str, str], Picked] = {}
    rooms = zip(sorts, (MOST // 2, MOST * 3 // 4, MOST), strict=True)
    for sort, room in (*rooms, *((sort, MOST) for sort in sorts)):  # each sort has its room, and what others leave
        for one in sorts[sort]:
            if len(shown) >= room:
                break
            mark = "" if sort == "turned" or (sort != BROKEN and not meant) else sort
            example = Example(
                before=before[one], after=after[one], question=shown_question(prompt, samples[one].question), mark=mark
            )
            shown.setdefault((before[one], after[one]), Picked(one, samples[one].image, example))
    order = [one for own in sorts.values() for one in own]
    return Examples(tuple(sorted(shown.values(), key=lambda one: order.index(one.sample))), tuple(sorts[BROKEN]))


def with_pictures(shown: Sequence[Picked], folder: Path) -> tuple[Example, ...]:
    """The examples, with thumbnails of their pictures written to FOLDER/thumbnails. A broken picture is left out."""
    pictured = [one for one in shown if one.image is not None]
    if not pictured:
        return tuple(one.example for one in shown)
    images = {one.sample: one.image for one in pictured}
    names, _ = thumbnails([(one.sample,) for one in pictured], images, folder / THUMBNAILS)
    found = {one.sample: f"{THUMBNAILS}/{name[0]}" for one, name in zip(pictured, names, strict=True) if name}
    return tuple(one.example.model_copy(update={"picture": found.get(one.sample, "")}) for one in shown)
