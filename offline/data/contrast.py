"""Contrastive pairs: each sample asked in several ways, which its states are labelled by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..errors import SettingError
from ..states.labels import tidy
from ..states.prompts import QUESTION, filled
from ..states.samples import Sample

__all__ = ["COLUMN", "contrasted", "parse_contrast"]

COLUMN = "contrast"
"""The column that says which of its ways a sample is asked in."""


def parse_contrast(pairs: Iterable[str]) -> dict[str, str]:
    """{"sad": "Pretend you are sad. {question}"} from "sad=Pretend you are sad. {question}".

    Raises:
        SettingError: a pair of another form, a text without the question, a name twice, or one name alone.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = tidy(name)
        if not equals or not name or QUESTION not in text:
            raise SettingError(
                f"--contrast {pair[:80]!r}: expected <name>=<text>, where the text holds {QUESTION}, as in "
                f"sad='Pretend you are sad. {QUESTION}'"
            )
        if name in found:
            raise SettingError(f"--contrast: {name!r} is given twice; every way needs a name of its own")
        found[name] = text
    if len(found) == 1:
        raise SettingError(f"--contrast: {name!r} alone contrasts with nothing; give a second one")
    return found


def contrasted(samples: Iterable[Sample], ways: Mapping[str, str]) -> tuple[Sample, ...]:
    """Each sample once per way, called <id>/<way>, its question in the way's words. ways: text by name.

    Raises:
        SettingError: the samples have a column of that name already.
    """
    found = []
    for sample in samples:
        if COLUMN in sample.columns:
            raise SettingError(f"the samples have a column {COLUMN!r}, which --contrast would write; rename theirs")
        for way, text in ways.items():
            question = filled(text, sample.question)
            columns = {**sample.columns, COLUMN: way}
            found.append(replace(sample, id=f"{sample.id}/{way}", question=question, columns=columns))
    return tuple(found)
