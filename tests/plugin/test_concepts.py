"""What gates choose comes out of the tables whole: each token once, under the name of its profile."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from prometheus_client import REGISTRY

from tests.plugin.conftest import SIZE
from trimtab.plugin.model.chosen import chosen_in
from trimtab.plugin.model.tables import SteeringTables
from trimtab.plugin.requests.positions import END
from trimtab.plugin.requests.request import Part, Steering
from trimtab.plugin.runners.concepts import ConceptCounts
from trimtab.plugin.steps.decisions import SteeredRequest
from trimtab.vectors import Gate, ModelIdentity, Profile, SteeringVector

MODEL = ModelIdentity(architecture="LlamaForCausalLM", hidden_size=SIZE, num_layers=3)
CENTROIDS = 10.0 * np.eye(3, SIZE)
NEAR = Gate(max_distance=5.0)
NAMES = (f"counted-{number}" for number in itertools.count())


@pytest.fixture
def name() -> str:
    """Of a profile that no other test has: a process counts in one place."""
    return next(NAMES)


def fine(
    name: str,
    scale: float = 1.0,
    gate: Gate = NEAR,
    expected: dict[int, tuple[float, ...]] | None = None,
) -> Profile:
    layers = {1: (CENTROIDS, scale * np.ones((3, SIZE)))}
    return Profile.fine(name, layers, model=MODEL, gate=gate, expected=expected)


def tables_for(*profiles: Profile, rows: int = 30) -> SteeringTables:
    tables = SteeringTables({1: rows}, 2 + 4, SIZE, tokens=4000, requests=4)
    for profile in profiles:
        tables.load(profile)
    return tables


def serve(tables: SteeringTables, profile: Profile | None, concepts: list[int], *, once: bool = False) -> None:
    """One request whose tokens lie at these concepts; 3 is far from all. once: token by token, as an answer comes."""
    held: list[SteeredRequest | None] = [None]
    if profile is not None:
        held = [tables.take(Steering((Part(profile.digest, 1.0, ((0, END),), None, once),)))]
    stream = torch.zeros(len(concepts), SIZE)
    for token, concept in enumerate(concepts):
        stream[token, concept] = 10.0 if concept < 3 else 100.0
    size = 1 if once else len(concepts)
    for at in range(0, len(concepts), size):
        tables.step(held, np.array([at], np.int32), np.array([size]))
        tables.layers[1].forward(stream[at : at + size], torch.zeros(size, SIZE))


def active(name: str, layer: int = 1) -> list[float | None]:
    where = ({"profile": name, "layer": str(layer), "concept": concept} for concept in ("0", "1", "2", "outside"))
    return [REGISTRY.get_sample_value("trimtab_concept_active_total", labels) for labels in where]


def drift(name: str) -> float | None:
    return REGISTRY.get_sample_value("trimtab_concept_drift", {"profile": name, "layer": "1"})


def test_each_position_counts_once_however_often_it_is_read(name: str) -> None:
    profile = fine(name)
    tables = tables_for(profile)
    counts = ConceptCounts(tables)
    counts.read()
    assert active(name) == [0, 0, 0, 0]
    serve(tables, profile, [0, 0, 1, 3, 3, 3])
    counts.read()
    counts.read()
    assert active(name) == [2, 1, 0, 3]
    serve(tables, profile, [2])
    serve(tables, None, [0, 1, 2])
    counts.read()
    assert active(name) == [2, 1, 1, 3]


def test_two_profiles_and_a_coarse_one_in_between_are_told_apart(name: str) -> None:
    one, other = fine(name), fine(f"{name}-other", 2.0)
    coarse = Profile.coarse(f"{name}-coarse", [SteeringVector(1, [1.0] * SIZE)], model=MODEL)
    tables = tables_for(one, coarse, other)
    counts = ConceptCounts(tables)
    serve(tables, one, [0, 1])
    serve(tables, coarse, [2, 2, 2])
    serve(tables, other, [1, 3])
    counts.read()
    assert (active(name), active(other.name)) == ([1, 1, 0, 0], [0, 1, 0, 1])
    assert active(coarse.name) == [None] * 4


def test_of_an_answer_that_is_decided_once_each_position_is_counted_and_one_decision(name: str) -> None:
    profile = fine(name, gate=Gate(scope="sequence", max_distance=5.0))
    tables = tables_for(profile)
    serve(tables, profile, [1, 0, 2, 3], once=True)
    serve(tables, profile, [3, 0], once=True)
    (found,) = chosen_in(tables)
    assert (found.decided.tolist(), found.kept.tolist()) == ([0, 1, 0, 1], [0, 3, 0, 1])
    ConceptCounts(tables).read()
    assert active(name) == [0, 4, 0, 2]


def test_the_probe_and_dummy_runs_count_nothing(name: str) -> None:
    profile = fine(name)
    tables = tables_for(profile)
    serve(tables, profile, [0, 1])
    stream = torch.ones(2000, SIZE)
    tables.tokens.clear()
    tables.layers[1].forward(stream, stream)
    with tables.probing():
        tables.layers[1].probe(tables.probe_slot, torch.ones(SIZE))
        tables.layers[1].forward(stream, stream)
    assert tables.layers[1].counts.sum() == 2


def test_rows_that_another_profile_gets_begin_at_zero(name: str) -> None:
    """A worker brings out what was counted before it loads: see `runners.staging`."""
    one, other = fine(name), fine(f"{name}-other", 2.0)
    tables = tables_for(one, rows=7)
    counts = ConceptCounts(tables)
    serve(tables, one, [0, 1])
    counts.read()
    tables.load(other, keep=())
    serve(tables, other, [2])
    counts.read()
    tables.load(one, keep=())
    serve(tables, one, [2, 2])
    counts.read()
    assert (active(name), active(other.name)) == ([1, 1, 2, 0], [0, 0, 1, 0])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("trimtab.plugin.runners.concepts.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("sleeps", [False, True])
def test_counts_come_every_two_seconds_and_at_once_when_nothing_runs(
    name: str, clock: list[float], sleeps: bool
) -> None:
    profile = fine(name)
    tables = tables_for(profile)
    counts = ConceptCounts(tables, sleeps=sleeps)
    counts.before_step(idle=False)
    serve(tables, profile, [0])
    clock[0] += 1.9
    counts.before_step(idle=False)
    assert active(name)[0] == 0
    clock[0] += 0.2
    counts.before_step(idle=False)
    assert active(name)[0] == 1
    serve(tables, profile, [0])
    counts.before_step(idle=True)
    # A step without tokens may come to an engine that sleeps: its tables are out of memory then.
    assert active(name)[0] == (1 if sleeps else 2)


def test_the_drift_is_shown_once_its_window_is_full_and_only_where_shares_are_expected(name: str) -> None:
    known, unknown = fine(name, expected={1: (0.5, 0.5, 0.0)}), fine(f"{name}-unknown", 2.0)
    tables = tables_for(known, unknown)
    counts = ConceptCounts(tables)
    for _ in range(999):
        serve(tables, known, [0, 1])
        serve(tables, unknown, [0, 1])
    counts.read()
    assert drift(name) is None
    serve(tables, known, [0, 1])
    counts.read()
    assert drift(name) == pytest.approx(0, abs=1e-9)
    for _ in range(1000):
        serve(tables, known, [0, 3])
    counts.read()
    assert (drift(name) or 0) > 0.25
    assert drift(unknown.name) is None


def test_of_two_versions_the_one_that_serves_more_says_the_drift(name: str) -> None:
    shares: dict[int, tuple[float, ...]] = {1: (1.0, 0.0, 0.0)}
    active_one, staged = fine(name, expected=shares), fine(name, 2.0, expected=shares)
    tables = tables_for(active_one, staged)
    counts = ConceptCounts(tables)
    for profile, concept in ((active_one, 0), (staged, 1)):
        for _ in range(1000):
            serve(tables, profile, [concept])
    serve(tables, active_one, [0])
    counts.read()
    assert drift(name) == pytest.approx(0, abs=1e-6)
