"""Gender → neutral captions: what coarse and fine convert at the default strength.

A caption is *converted* when it had a gendered word, has none after, and has a neutral one; *deleted* when it lost its
gendered words without a neutral one in their place. Words are matched whole (docs/method.md §5).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.tinyworld.ask import Sample
from examples.tinyworld.data import read_split
from examples.tinyworld.demo.client import Client, How
from examples.tinyworld.demo.profiles import GENDER
from examples.tinyworld.words import LEXICON, other_facts

PROFILES = {"coarse": f"{GENDER}-coarse", "fine": GENDER}


def conversions(client: Client, folder: Path) -> dict[str, Any]:
    """The `gender` part of the demo's JSON. Its dev curves are empty: strengths are swept by `make study`."""
    test = _gendered_captions(client, folder)
    found: dict[str, Any] = {"total": len(test[1]), "dev_total": 0}
    for kind, profile in PROFILES.items():
        found[kind] = {**_judge(client, folder, *test, profile, 1.0), "dev_curve": []}
    return found


def _gendered_captions(client: Client, folder: Path) -> tuple[list[Sample], list[str]]:
    """The samples whose unsteered caption holds a gendered word, and these captions."""
    samples = [sample for sample in read_split(folder) if sample.type == "caption"]
    captions = client.ask(folder, samples, label=f"{folder.name} captions unsteered")
    pairs = [(sample, text) for sample, text in zip(samples, captions, strict=True) if LEXICON.words(text)]
    return [sample for sample, _ in pairs], [text for _, text in pairs]


def _judge(
    client: Client, folder: Path, samples: Sequence[Sample], plain: Sequence[str], profile: str, alpha: float
) -> dict[str, Any]:
    label = f"{folder.name} {profile} {alpha:g}"
    steered = client.ask(folder, samples, How(profile, alpha), label=label)
    kinds = [LEXICON.kind(text) for text in steered]
    changed = sum(other_facts(a) != other_facts(b) for a, b in zip(plain, steered, strict=True))
    return {
        "alpha": alpha,
        "converted": kinds.count("neutral"),
        "deleted": kinds.count("neither"),
        "other_facts_changed": changed / len(samples),
    }
