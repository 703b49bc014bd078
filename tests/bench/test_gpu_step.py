"""The laws that `bench.gpu_step` checks before it times: they hold for the real op, and find out an addition that does
nothing, or that is another one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from bench.decoder import Decoder
from bench.gpu_step import CASES, SHAPES, Bench, Replayed, Steered, checked

BATCH = 8
LAYERS = (2, 5)


class Steps(NamedTuple):
    steered: Steered
    plain: Replayed
    armed: Replayed


@pytest.fixture(scope="module")
def steps() -> Iterator[Steps]:
    torch.manual_seed(0)
    with torch.inference_mode():
        model = Decoder(SHAPES["tiny"], "cpu", frozenset(LAYERS), "eager")
        steered = Steered(SHAPES["tiny"], LAYERS, BATCH, "cpu")
        tokens, caches = model.tokens(BATCH), model.caches(BATCH)
        plain = Replayed(lambda: model.step(tokens, caches, {}), "cpu")
        yield Steps(steered, plain, Replayed(lambda: model.step(tokens, caches, steered.tables.layers), "cpu"))


@pytest.mark.parametrize("case", CASES)
def test_every_law_holds_of_the_op(case: str, steps: Steps) -> None:
    found = checked(case, BATCH, *steps)
    assert all(found["laws"].values()), found
    assert (found["most_added"] > 0) == (case != "idle")


@pytest.mark.parametrize("case", CASES[1:])
def test_a_step_without_the_addition_is_found_out(case: str, steps: Steps) -> None:
    laws = checked(case, BATCH, steps.steered, steps.plain, steps.plain)["laws"]
    assert not laws["idle as plain, else not"]
    assert not laws["stream is plain + addition"]


def test_another_row_is_found_out(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = steps.steered.tables.layers[LAYERS[0]].rows
    monkeypatch.setattr(steps.steered.tables.layers[LAYERS[0]], "rows", rows.flip(0))
    assert not checked("fine K=64", BATCH, *steps)["laws"]["addition as in float64"]


def test_a_case_for_which_no_time_is_left_is_skipped_and_said_to_be(steps: Steps, tmp_path: Path) -> None:
    bench = Bench("cpu", 1, tmp_path / "found.json", time.monotonic() - 1, {})
    bench.measure({"batch": BATCH, "case": "idle", "armed": 2}, steps.plain, steps.armed, dict, 1e-3)
    assert bench.rows == [{"batch": BATCH, "case": "idle", "armed": 2, "skipped": "no time left"}]
    assert '"skipped"' in (tmp_path / "found.json").read_text()
