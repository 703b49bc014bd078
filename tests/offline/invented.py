"""A run with every kind of finding, for tests of the report: real small pictures, invented figures.

    python -m tests.offline.invented RUN

The figures are drawn from a seed and mean nothing; the notes say so, lest a page made from them be mistaken for a
result.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from examples.tinyworld.ask import caption
from examples.tinyworld.draw import draw
from examples.tinyworld.scene import Scene, sample_split
from trimtab.offline.findings import (
    AboutFound,
    AnswersFound,
    ChoiceFound,
    Concept,
    ConceptsFound,
    ConceptShift,
    DriftFound,
    Example,
    Measured,
    ShiftFound,
    SweepFound,
    SweepPoint,
    TableFound,
    write_finding,
)

WORDS = (
    "man", "woman", "boy", "girl", "person", "child", "umbrella", "kite", "flag", "bag",
    "ball", "box", "cone", "star", "beach", "forest", "street", "snow", "room", "sign",
)  # fmt: skip
INVENTED = "Invented figures that show what this page can hold; no model was measured."
SPLITS: tuple[tuple[Literal["dev", "test"], int], ...] = (("dev", 400), ("test", 900))
STEPS = (0, 30, 60, 120, 180, 240)


def invented_run(run: Path, seed: int = 0) -> Path:
    """Write the run and its pictures; equal seeds write equal bytes."""
    rng = np.random.default_rng(seed)
    scenes = _scenes(run, seed)
    facts = {
        "model": "a model that does not exist",
        "command": "python -m tests.offline.invented RUN",
        "seed": str(seed),
    }
    write_finding(run, "study", AboutFound(title="An invented study", note=INVENTED, facts=facts))
    write_finding(run, "answers", _concepts(rng, list(scenes)))
    write_finding(run, "k", _choice())
    write_finding(run, "place", _shift(rng))
    write_finding(run, "place", _drift(rng))
    write_finding(run, "yes-no", _sweep())
    write_finding(run, "yes-no", _answers(rng, list(scenes.values())))
    write_finding(run, "accuracy", _table())
    return run


def _scenes(run: Path, seed: int) -> dict[str, Scene]:
    (run / "pictures").mkdir(parents=True, exist_ok=True)
    drawn = random.Random(seed)
    scenes = {f"pictures/{i:03}.png": sample_split(drawn, "test") for i in range(40)}
    for name, scene in scenes.items():
        draw(scene).save(run / name)
    return scenes


def _concepts(rng: np.random.Generator, pictures: Sequence[str]) -> ConceptsFound:
    concepts = [
        Concept(
            label=word,
            rows=int(rng.integers(40, 900)),
            purity=float(rng.uniform(0.6, 1)),
            words=(word, *rng.permutation([w for w in WORDS if w != word])[:9]),
            images=tuple(rng.permutation(pictures)[:5]),
        )
        for word in WORDS
    ]
    quality = {"mean pairwise word overlap": 0.148, "reconstruction error": 0.312, "smallest cluster": 41.0}
    return ConceptsFound(
        title="Twenty concepts of captions",
        note=INVENTED,
        layer=5,
        method="kmeans",
        concepts=tuple(concepts),
        quality=quality,
    )


def _choice() -> ChoiceFound:
    k = (5, 10, 15, 20, 30, 40)
    curves = {
        "reconstruction error": tuple(0.2 + 1.6 / one for one in k),
        "mean pairwise word overlap": tuple(0.05 + 0.004 * one for one in k),
    }
    return ChoiceFound(title="How many concepts", note=INVENTED, k=k, curves=curves, chosen=20)


def _shift(rng: np.random.Generator) -> ShiftFound:
    concepts = []
    for i, word in enumerate(WORDS):
        at = rng.normal(0, 3, 2)
        match = at + rng.normal(0, 1.6, 2)
        shifted = at + (match - at) * rng.uniform(0.5, 1) + rng.normal(0, 0.15, 2)
        before, gain = rng.uniform(0.3, 0.7), rng.uniform(0.02, 0.28)
        concepts.append(
            ConceptShift(
                label=word,
                rows=int(rng.integers(40, 900)),
                magnitude=float(rng.uniform(2, 9)),
                consistency=float(rng.uniform(0.3, 0.8)),
                pairwise_consistency=float(rng.uniform(0.1, 0.6)),
                match=WORDS[-1 - i] if i % 5 == 0 else word,
                cosine_before=float(before),
                cosine_after=float(before + gain),
                recovery=None if i == 3 else float(gain / before),
                overlap_before=float(rng.integers(1, 5) * 10),
                overlap_after=float(rng.integers(3, 10) * 10),
                words_before=WORDS[i : i + 5],
                words_after=WORDS[: i + 1][:5],
                words_match=WORDS[:5],
                at=(float(at[0]), float(at[1])),
                shifted=(float(shifted[0]), float(shifted[1])),
                match_at=(float(match[0]), float(match[1])),
            )
        )
    correlations = {
        "consistency and recovery": Measured(value=0.44, low=0.11, high=0.69, n=20, how="bootstrap"),
        "magnitude and recovery": Measured(value=-0.08, low=-0.41, high=0.35, n=20, how="bootstrap"),
    }
    means = {
        "no shift": 0.1,
        "global mean": 0.28,
        "shuffled Δ": 0.3,
        "per concept": 0.48,
        "random clusters": 0.6,
        "ceiling": 0.8,
    }
    controls = {
        name: Measured(value=mean, low=mean - 0.05, high=mean + 0.06, n=20, how="bootstrap")
        for name, mean in means.items()
    }
    return ShiftFound(
        title="A fine-tune that looks at places",
        note=INVENTED,
        layer=5,
        concepts=tuple(concepts),
        correlations=correlations,
        controls=controls,
    )


def _drift(rng: np.random.Generator) -> DriftFound:
    curves = {word: tuple(100 * float(np.exp(-step / rng.uniform(80, 600))) for step in STEPS) for word in WORDS}
    return DriftFound(title="Words that concepts keep", note=INVENTED, steps=STEPS, curves=curves)


def _rate(share: float, n: int) -> Measured:
    half = 1.96 * (share * (1 - share) / n) ** 0.5
    return Measured(value=share, low=max(share - half, 0), high=min(share + half, 1), n=n, how="normal")


def _sweep() -> SweepFound:
    points = []
    for series, cost in (("yes → no, coarse", 0.5), ("yes → no, fine", 0.12)):
        for layer in (1, 3, 5):
            for alpha in (0.25, 0.5, 1.0, 1.5, 2.0):
                gained = 1 - float(np.exp(-alpha * (layer + 1) / 4))
                collateral = cost * alpha * alpha / 4 * (1.4 - layer / 6)
                chosen = layer == 5 and alpha == 1
                for split, n in SPLITS[: 1 + chosen]:
                    point = SweepPoint(
                        series=series,
                        layer=layer,
                        alpha=alpha,
                        split=split,
                        gained=_rate(gained * 0.96 if split == "test" else gained, n),
                        collateral=_rate(collateral, n),
                        chosen=chosen and split == "dev",
                    )
                    points.append(point)
    return SweepFound(title="Yes to no", note=INVENTED, points=tuple(points))


def _answers(rng: np.random.Generator, scenes: Sequence[Scene]) -> AnswersFound:
    flow = {("yes", "no"): 1218, ("yes", "yes"): 61, ("no", "no"): 1310, ("two", "no"): 14, ("red", "blue"): 9}
    for before in WORDS[:12]:
        for after in rng.permutation(WORDS)[:2]:
            flow[before, str(after)] = int(rng.integers(1, 30))
    told = [caption(scene) for scene in scenes[:12]]
    examples = tuple(Example(before=one, after=_neutral(one)) for one in told)
    return AnswersFound(
        title="Where yes went",
        note=INVENTED,
        steering="yes-to-no, fine, α = 1",
        flow=tuple((*ends, many) for ends, many in flow.items()),
        examples=examples,
    )


def _neutral(text: str) -> str:
    for gendered, neutral in (("man|woman", "person"), ("boy|girl", "child"), ("his|her", "their")):
        text = re.sub(rf"\b({gendered})\b", neutral, text)
    return text


def _table() -> TableFound:
    return TableFound(
        title="Accuracy beside the paper",
        note=INVENTED + " The published rows are the paper's.",
        columns=("steering", "yes/no", "number", "other", "Δ original", "Δ target"),
        rows=(
            ("none", 90.82, 58.47, 71.10, 0, 0),
            ("yes → no", 69.03, 56.82, 68.99, -828, 828),
            ("none, ours", 97.3, 93.55, 99.65, 0, 0),
            ("yes → no, ours", 57.1, 93.4, 99.7, -1218, 1218),
            ("1 → 3, ours", 97.3, 76.5, None, -248, 250),
        ),
        published=(0, 1),
        command="python -m tests.offline.invented RUN",
    )


if __name__ == "__main__":
    print(invented_run(Path(sys.argv[1])))
