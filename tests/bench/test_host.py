"""The steps that `bench.host` times are those of a real batch, and the plugin's tables take them."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any

import pytest

from bench.host import KINDS, PROMPT, filler, steps
from trimtab.plugin.steps import batch
from trimtab.plugin.steps import entries as tokens


@pytest.mark.parametrize("kind", KINDS)
def test_requests_that_stay_count_their_tokens_and_others_come_in_their_place(kind: str) -> None:
    taken = list(islice(steps(kind, 16), 20))
    came = {"steady": 0, "change": 1, "mixed": 2}[kind]
    for (before, counted, scheduled), (after, computed, _) in pairwise(taken):
        stayed = [here is there for here, there in zip(before, after, strict=True)]
        assert stayed.count(False) == came
        assert (computed == counted + scheduled)[stayed].all()
    assert all((scheduled == PROMPT).sum() == (came if kind == "mixed" else 0) for *_, scheduled in taken)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_timed_sets_the_rows_of_each_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_rows: list[int] = []

    def fill_entries(*arguments: Any) -> tuple[int, bool]:
        used, repeats = batch.fill_entries(*arguments)
        set_rows.append(used)
        return used, repeats

    monkeypatch.setattr(tokens, "fill_entries", fill_entries)
    prepare = filler(layers=3, requests=16)
    taken = list(islice(steps(kind, 16), 20))
    for step in taken:
        prepare(step)()
    # A steady step leaves the rows of the first one standing.
    expected = [int(scheduled.sum()) for *_, scheduled in taken]
    assert set_rows == (expected[:1] if kind == "steady" else expected)
