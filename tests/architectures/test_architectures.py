"""Many architectures: armed by structure, and steered as transformers with the vector added to the same layer.

`make test` compares a sample with every form that a layer's output has; `-m slow` and `make models` compare all.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.architectures import pictures, record, text
from tests.architectures.comparison import BOUND, compare
from tests.architectures.parts import HIDDEN, LAYERS
from tests.architectures.table import ROWS, build
from tests.architectures.vectors import AT
from trimtab.offline.models.reader import decoder_blocks
from trimtab.vectors import ModelIdentity

RECORDED: dict[str, Any] = json.loads(record.PROVEN.read_text("utf-8"))


@pytest.mark.engine
@pytest.mark.parametrize(
    "name", [name if row.sample else pytest.param(name, marks=pytest.mark.slow) for name, row in ROWS.items()]
)
def test_a_served_model_is_steered_as_transformers_is(name: str, tmp_path: Path) -> None:
    found = compare(ROWS[name], tmp_path)
    assert found.status == RECORDED[name]["status"]
    assert found.implementation == RECORDED[name]["implementation"]
    if found.status != "proven":
        return
    row = ROWS[name]
    kinds = [kind for kind, asked in (("text", row.text), ("picture", row.pictures)) if asked]
    steered = ["unsteered", *(f"{kind}-{layer}" for kind in ("coarse", "fine") for layer in AT)]
    expected = {f"{kind} {one}{batch}" for kind, one, batch in itertools.product(kinds, steered, ("", ", batched"))}
    assert found.differences.keys() == expected
    assert found.max_difference is not None
    assert found.max_difference <= BOUND


def test_the_sample_has_the_papers_other_two_models_and_both_implementations() -> None:
    sample = {name: RECORDED[name] for name, row in ROWS.items() if row.sample}
    assert len(sample) >= 8
    assert {row["implementation"] for row in sample.values()} == {"native", "transformers"}
    assert {"Idefics2ForConditionalGeneration", "Qwen2VLForConditionalGeneration"} <= sample.keys()
    assert sum(row["status"] == "proven" for row in sample.values()) >= 7


def test_at_least_thirty_architectures_are_proven() -> None:
    assert RECORDED.keys() <= ROWS.keys()
    assert sum(row["status"] == "proven" for row in RECORDED.values()) >= 30
    for row in RECORDED.values():
        assert row["status"] in ("proven", "differs", "refused")
        assert row["reason"] or row["status"] == "proven"
        assert row["status"] != "proven" or row["max_difference"] <= BOUND


def test_the_page_shows_what_the_plugin_reads() -> None:
    page = record.PAGE.read_text("utf-8")
    shown = page[page.index(record.BEGIN) + len(record.BEGIN) : page.index(record.END)].strip().splitlines()
    # The versions stand in the first line: those of the run that made the table, not of this one.
    assert shown[1:] == record.table(RECORDED).strip().splitlines()[1:]


@pytest.mark.parametrize("name", text.TEXT)
def test_the_blocks_of_a_text_decoder_are_found_whatever_their_list_is_called(name: str) -> None:
    kind: Any = getattr(transformers, name)
    with torch.device("meta"):
        blocks = decoder_blocks(kind(text.config_of(name)))
    assert len(set(blocks)) == LAYERS
    assert all(type(block).__name__.endswith(("Layer", "Block")) for block in blocks)


@pytest.mark.parametrize("name", ["LlavaNextForConditionalGeneration", "Qwen3VLForConditionalGeneration"])
def test_the_same_call_writes_the_same_checkpoint(name: str, tmp_path: Path) -> None:
    assert name in pictures.PICTURES
    one, other = (ModelIdentity.of(build(name, tmp_path / which)) for which in ("one", "other"))
    assert one == other
    assert (one.architecture, one.hidden_size, one.num_layers) == (name, HIDDEN, LAYERS)
