"""A sample of `make conformance`: the same code, fewer batches."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conformance.batches import batch
from tests.conformance.campaign import Campaign, start
from tests.conformance.formula import Formula
from tests.conformance.profiles import make_profiles
from tests.engine.engine import ROOT, Engine

pytestmark = pytest.mark.engine

SEED, POOL = 1, 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conformance")


@pytest.fixture(scope="module")
def campaign(folder: Path) -> Campaign:
    torch.set_num_threads(1)
    # A copy: a training may replace the folder while the tests run.
    formula = Formula(shutil.copytree(ROOT / "examples/tinyworld/model", folder / "model"))
    return Campaign(formula, make_profiles(formula, folder / "profiles", SEED), POOL, SEED)


@pytest.fixture(scope="module")
def engine(folder: Path, campaign: Campaign) -> Iterator[Engine]:
    with start(folder / "engine.log", folder / "model", folder / "profiles") as running:
        campaign.ask_alone(running, lambda: None)
        yield running


def test_a_request_alone_is_told_what_the_formula_says(campaign: Campaign, engine: Engine) -> None:
    assert [difference for difference in campaign.check_formula(lambda: None) if not difference.tie] == []


def test_whoever_shares_a_batch_changes_nothing(campaign: Campaign, engine: Engine) -> None:
    tally = campaign.serve(engine, [batch(number, POOL, SEED) for number in range(12)], lambda: None)
    assert tally.wrong == []
    assert len(tally.ties) <= 1
    assert min(tally.preempted, tally.aborted, tally.cached) > 0


# The rows of the step before differ in few steps of a request, and not every one of those shows.
@pytest.mark.parametrize(("kind", "least"), [("shuffled", 0.95), ("stale", 0.75)])
def test_rows_that_are_not_a_requests_own_are_noticed(
    campaign: Campaign, engine: Engine, kind: str, least: float
) -> None:
    tally = campaign.serve(engine, [batch(number, POOL, SEED) for number in range(2)], lambda: None, kind)
    assert tally.changed > 20
    assert tally.noticed >= least * tally.changed
