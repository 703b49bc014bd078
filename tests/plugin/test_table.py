"""The tables hold every loaded profile's rows, are only written in place, and are never left half written."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.plugin.conftest import SIZE
from trimtab.plugin.config import rows_of
from trimtab.plugin.errors import StartupError
from trimtab.plugin.model.op import FIRST, NOT_HERE
from trimtab.plugin.model.tables import SteeringTables
from trimtab.plugin.requests.positions import END
from trimtab.plugin.requests.request import Part, Steering
from trimtab.vectors import Gate, ModelIdentity, Profile, Registry, SteeringVector

MODEL = ModelIdentity(architecture="LlamaForCausalLM", hidden_size=SIZE, num_layers=3)
EVERYWHERE = ((0, END),)


def tables_of(rows: dict[int, int], slots: int, **here: Any) -> SteeringTables:
    return SteeringTables(rows, slots, SIZE, tokens=8, requests=2, **here)


def room_for_all(registry: Registry) -> SteeringTables:
    return tables_of({0: 2, 1: 7, 2: 3}, 2 + len(registry))


def buffers(tables: SteeringTables) -> dict[str, torch.Tensor]:
    named = dict(tables.tokens.named_buffers(prefix="tokens"))
    for layer, table in tables.layers.items():
        named |= dict(table.named_buffers(prefix=str(layer)))
    return named


def steered(tables: SteeringTables, layer: int, profile: Profile, h: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """What a layer adds to rows that are all steered by `profile`."""
    request = tables.take(Steering((Part(profile.digest, alpha, EVERYWHERE, None, False),)))
    tables.step([request], np.zeros(1, np.int32), np.array([len(h)]))
    return tables.layers[layer].forward(h, torch.zeros_like(h))


def test_each_profile_adds_its_own_vectors_at_its_own_layers(registry: Registry) -> None:
    tables = room_for_all(registry)
    for profile in registry.values():
        tables.load(profile)
    for profile in registry.values():
        for layer in (0, 1, 2):
            if layer not in profile.layers:
                assert not steered(tables, layer, profile, torch.ones(1, SIZE)).any()
            elif "vector" in profile.tensors[layer].named:
                vector = torch.tensor(profile.tensors[layer].named["vector"])
                assert torch.equal(steered(tables, layer, profile, torch.ones(1, SIZE), 2.0)[0], 2 * vector)
            else:
                rows = profile.tensors[layer].named
                at_the_centroids = steered(tables, layer, profile, torch.tensor(rows["centroids"]))
                assert torch.equal(at_the_centroids, torch.tensor(rows["vectors"]))


def test_profiles_of_one_request_are_added_up(registry: Registry, coarse: Profile, last: Profile) -> None:
    tables = room_for_all(registry)
    for profile in registry.values():
        tables.load(profile)
    parts = [Part(profile.digest, alpha, EVERYWHERE, None, False) for profile, alpha in ((coarse, 2.0), (last, -1.0))]
    tables.step([tables.take(Steering(tuple(parts)))], np.zeros(1, np.int32), np.ones(1, np.int32))
    stream = torch.ones(1, SIZE)
    assert tables.layers[2].forward(stream, stream).tolist() == [[-1.0, -1.0, 5.0, 7.0]]
    assert tables.layers[0].forward(stream, stream).tolist() == [[2.0, -4.0, 1.0, 0.5]]
    assert not tables.layers[1].forward(stream, stream).any()


@pytest.mark.parametrize(
    ("gate", "inside", "outside"),
    [
        (Gate(), [90.0, 1.0, 0.0, 0.0], None),
        (Gate(max_distance=2.0), [12.0, 0.0, 0.0, 0.0], [12.5, 0.0, 0.0, 0.0]),
        (Gate(metric="cosine", max_distance=0.5), [1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 1.0, 1.0]),
        (Gate(metric="cosine"), [-1.0, 0.0, 0.0, 0.0], None),
        (Gate(metric="euclidean", max_distance=0.0), [10.0, 0.0, 0.0, 0.0], [10.0, 0.0, 0.0, 0.5]),
    ],
)
def test_a_gates_limit_is_inclusive(gate: Gate, inside: list[float], outside: list[float] | None) -> None:
    centroid, vector = np.array([[10.0, 0.0, 0.0, 0.0]]), np.array([[1.0, 2.0, 3.0, 4.0]])
    profile = Profile.fine("p", {1: (centroid, vector)}, model=MODEL, gate=gate)
    tables = tables_of({1: 3}, 3)
    tables.load(profile)
    assert steered(tables, 1, profile, torch.tensor([inside])).tolist() == vector.tolist()
    if outside is not None:
        assert not steered(tables, 1, profile, torch.tensor([outside])).any()


OWN: dict[int, tuple[float | None, ...]] = {1: (0.5, None, 3.0)}


@pytest.mark.parametrize(
    ("gate", "reach"),
    [
        (Gate(max_distance=2.0), (2.0, 2.0, 2.0)),
        (Gate(max_distance=2.0, limits=OWN), (0.5, 2.0, 3.0)),
        (Gate(max_distance=2.0, limits={}), (2.0, 2.0, 2.0)),
        (Gate(limits=OWN), (0.5, 40.0, 3.0)),
        (Gate(scope="sequence", max_distance=2.0, limits=OWN), (0.5, 2.0, 3.0)),
    ],
)
def test_the_limit_of_a_concept_replaces_the_gates(gate: Gate, reach: tuple[float, ...]) -> None:
    centroids, vectors = 100 * np.eye(3, SIZE), np.arange(1.0, 4.0)[:, None] * np.ones((3, SIZE))
    other = Profile.fine("other", {1: (centroids, -vectors)}, model=MODEL, gate=Gate(max_distance=40.0))
    profile = Profile.fine("p", {1: (centroids, vectors), 2: (centroids, vectors)}, model=MODEL, gate=gate)
    tables = tables_of({1: 13, 2: 7}, 4)
    tables.load(other)  # so that its rows are not the first ones
    tables.load(profile)
    at = torch.tensor(centroids, dtype=torch.float32)
    out = torch.zeros(3, SIZE)
    out[:, 3] = torch.tensor(reach)
    assert steered(tables, 1, profile, at + out)[:, 0].tolist() == [1.0, 2.0, 3.0]
    beyond = steered(tables, 1, profile, at + torch.nextafter(out, torch.tensor(math.inf)))[:, 0].tolist()
    assert beyond == [0.0, 2.0 if reach[1] == 40.0 else 0.0, 0.0]
    if gate.max_distance is None:  # no limits are given for this layer
        assert steered(tables, 2, profile, at + 2 * out)[:, 0].tolist() == [1.0, 2.0, 3.0]
    else:
        assert steered(tables, 2, profile, at + 2.5 * out.clamp(1, 1))[:, 0].tolist() == [0.0, 0.0, 0.0]


def test_cosine_limits_of_concepts_are_not_squared() -> None:
    centroids = np.eye(2, SIZE)
    gate = Gate(metric="cosine", limits={1: (0.25, None)})
    profile = Profile.fine("p", {1: (centroids, np.ones((2, SIZE)))}, model=MODEL, gate=gate)
    tables = tables_of({1: 5}, 3)
    tables.load(profile)
    near, far = [4.0, 0.0, 0.0, 2.0], [4.0, 0.0, 0.0, 4.0]  # cosine distances of 0.11 and 0.29
    assert steered(tables, 1, profile, torch.tensor([near, far]))[:, 0].tolist() == [1.0, 0.0]
    assert steered(tables, 1, profile, torch.tensor([[0.0, 1.0, 0.0, 9.0]]))[0, 0] == 1.0


def test_loading_writes_in_place(registry: Registry) -> None:
    tables = room_for_all(registry)
    before = {name: (tensor.data_ptr(), tensor.shape) for name, tensor in buffers(tables).items()}
    for profile in registry.values():
        tables.load(profile)
    assert {name: (tensor.data_ptr(), tensor.shape) for name, tensor in buffers(tables).items()} == before


def test_all_tensors_are_buffers_that_no_checkpoint_names(registry: Registry) -> None:
    table = room_for_all(registry).layers[1]
    assert {name for name, _ in table.named_buffers()} == {
        *("summed", "rows", "bias", "slots", "limits", "decided", "counts"),
        *("tokens.entries", "tokens.lost"),
    }
    assert not table.state_dict()


def test_the_tables_keep_their_dtypes_under_a_models_own_default_dtype(registry: Registry, fine: Profile) -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        tables = room_for_all(registry)
        tables.load(fine)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in buffers(tables).values()} == {
        torch.float32,
        torch.float64,
        torch.int32,
        torch.int64,
        torch.uint8,
    }
    assert torch.equal(tables.layers[1].rows[4:], torch.tensor(fine.tensors[1].named["vectors"]))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_the_rows_of_two_profiles_never_overlap_and_fill_the_table_but_for_the_probes(ks: list[int]) -> None:
    """0 is a coarse profile."""
    tables, profiles = tables_of({1: 1 + sum(max(1, 2 * k) for k in ks)}, 2 + len(ks)), []
    for index, k in enumerate(ks):
        rows = np.full((max(k, 1), SIZE), index + 1.0)
        fine, coarse = {1: (rows, -rows)}, [SteeringVector(1, rows[0])]
        profile = Profile.fine(f"p{index}", fine, model=MODEL) if k else Profile.coarse("p", coarse, model=MODEL)
        tables.load(profile)
        profiles.append(profile)
    table = tables.layers[1]
    taken: list[int] = []
    for index, profile in enumerate(profiles):
        first, count, _ = table.slots[tables.slots[profile.digest]].tolist()
        mine = range(first, first + max(1, 2 * count))
        assert table.rows[list(mine), 0].tolist() == [index + 1] * max(count, 1) + [-index - 1] * count
        assert table.bias[list(mine)][:count].tolist() == [SIZE * (index + 1) ** 2 / 2] * count
        assert len(mine) == rows_of(profile.tensors[1])
        taken += mine
    assert sorted(taken) == list(range(1, len(table.rows)))
    assert table.rows[0].isposinf().all()


def test_slots_that_no_profile_has_are_not_here(coarse: Profile) -> None:
    tables = tables_of({0: 3, 1: 3, 2: 3}, 5)
    tables.load(coarse)
    assert tables.slots == {coarse.digest: 1}
    for layer, first in ((0, 1), (1, NOT_HERE), (2, 1)):
        assert tables.layers[layer].slots[:, FIRST].tolist() == [NOT_HERE, first, NOT_HERE, NOT_HERE, 0]


def test_the_probes_row_and_slot_are_nobody_elses_and_leave_no_trace(registry: Registry) -> None:
    tables = room_for_all(registry)
    for profile in registry.values():
        tables.load(profile)
    assert tables.probe_slot not in tables.slots.values()
    assert 0 not in tables.slots.values()
    before = {name: tensor.clone() for name, tensor in buffers(tables).items()}
    table, stream = tables.layers[1], torch.zeros(3, SIZE)
    with tables.probing():
        assert not table.forward(stream, stream).any()
        table.probe(tables.probe_slot, torch.tensor([-8.0, 8.0, -8.0, 8.0]))
        added = table.forward(stream, stream).tolist()  # on every second token
        assert added == [[-8.0, 8.0, -8.0, 8.0], [0.0] * SIZE, [-8.0, 8.0, -8.0, 8.0]]
        assert not tables.layers[0].forward(stream, stream).any()
        table.probe(tables.probe_slot, None)
        assert not table.forward(stream, stream).any()
    assert all(torch.equal(tensor, before[name]) for name, tensor in buffers(tables).items())


def test_a_request_whose_profile_is_not_there_is_marked_as_lost_and_gets_nothing(
    registry: Registry, coarse: Profile, last: Profile
) -> None:
    tables = room_for_all(registry)
    tables.load(last)
    with tables.probing():
        pass
    for alpha in (0.0, 1.0, -1.0):
        assert not steered(tables, 0, coarse, torch.ones(3, SIZE), alpha).any()
        assert tables.tokens.lost[:3].all()
        assert steered(tables, 2, last, torch.ones(3, SIZE)).any()


def version(number: int, k: int = 0, name: str = "p") -> Profile:
    """A version of a profile at layer 1, all of whose vectors have one number. k: 0 is coarse."""
    rows = np.full((max(k, 1), SIZE), float(number))
    if k:
        return Profile.fine(name, {1: (rows, rows)}, model=MODEL)
    return Profile.coarse(name, [SteeringVector(1, rows[0])], model=MODEL)


def test_a_thousand_versions_fit_where_two_do_and_nothing_is_allocated() -> None:
    tables = tables_of({1: 1 + 2 * 6}, 4)
    before = {name: (tensor.data_ptr(), tensor.shape) for name, tensor in buffers(tables).items()}
    served = version(1, 3)
    tables.load(served)
    for number in range(2, 1000):
        fresh = version(number, 3)
        tables.load(fresh, keep={served.digest})
        for profile, value in ((served, number - 1.0), (fresh, float(number))):
            assert steered(tables, 1, profile, torch.ones(1, SIZE)).tolist() == [[value] * SIZE]
        served = fresh
    assert {name: (tensor.data_ptr(), tensor.shape) for name, tensor in buffers(tables).items()} == before


def test_what_must_stay_stays_and_the_new_one_is_refused() -> None:
    tables, old = tables_of({1: 1 + 6}, 4), version(1, 3)
    tables.load(old)
    for keep in (None, {old.digest}):
        with pytest.raises(StartupError, match="needs 6 rows at layer 1 and 0 are free in one piece"):
            tables.load(version(2, 3), keep)
    assert steered(tables, 1, old, torch.ones(1, SIZE)).tolist() == [[1.0] * SIZE]


def test_the_oldest_leaves_first_and_only_when_room_is_needed() -> None:
    tables, (first, second, third, fourth) = tables_of({1: 4}, 5), [version(number) for number in range(4)]
    for one in (first, second, third):
        tables.load(one, keep=())
    assert set(tables.slots) == {first.digest, second.digest, third.digest}
    tables.load(fourth, keep={first.digest})
    assert set(tables.slots) == {first.digest, third.digest, fourth.digest}


def test_a_slot_that_is_used_again_adds_nothing_at_layers_of_the_profile_before() -> None:
    tables = tables_of({1: 2, 2: 2}, 3)
    both = Profile.coarse("p", [SteeringVector(layer, [1.0] * SIZE) for layer in (1, 2)], model=MODEL)
    tables.load(both)
    tables.load(version(5), keep=())
    assert steered(tables, 1, version(5), torch.ones(1, SIZE)).tolist() == [[5.0] * SIZE]
    assert not steered(tables, 2, version(5), torch.ones(1, SIZE)).any()


def test_loading_again_changes_nothing(registry: Registry, fine: Profile) -> None:
    tables = room_for_all(registry)
    tables.load(fine)
    before, slots = {name: tensor.clone() for name, tensor in buffers(tables).items()}, dict(tables.slots)
    tables.load(fine)
    assert tables.slots == slots
    assert all(torch.equal(tensor, before[name]) for name, tensor in buffers(tables).items())


@pytest.mark.parametrize(
    ("rows", "slots", "message"),
    [
        ({0: 2}, 4, r"'polite' steers layer 2, which is not armed \(armed: 0\); start with --steering-layers 2"),
        ({}, 4, r"steers layer 0, which is not armed \(armed: none\)"),
        ({0: 2, 2: 2}, 2, r"no slot is free for profile 'polite' \(there are 0\); start with a larger --steering-rows"),
        (
            {0: 1, 2: 2},
            4,
            r"'polite' needs 1 rows at layer 0 and 0 are free in one piece; .* --steering-rows \(1 more\)",
        ),
        ({0: 2, 2: 1}, 4, r"'polite' needs 1 rows at layer 2 and 0 are free"),  # when layer 0 has room already
    ],
)
def test_a_profile_without_room_is_refused_and_nothing_is_written(
    rows: dict[int, int], slots: int, message: str, coarse: Profile
) -> None:
    tables = tables_of(rows, slots)
    before = {name: tensor.clone() for name, tensor in buffers(tables).items()}
    with pytest.raises(StartupError, match=message):
        tables.load(coarse)
    assert all(torch.equal(tensor, before[name]) for name, tensor in buffers(tables).items())
    assert not tables.slots


def test_a_refused_profile_leaves_its_room_to_the_next(coarse: Profile, last: Profile) -> None:
    tables = tables_of({0: 2, 2: 2}, 4)
    tables.load(last)
    with pytest.raises(StartupError):
        tables.load(coarse)
    fits = Profile.coarse("fits", [SteeringVector(0, [5.0, 6.0, 7.0, 8.0])], model=MODEL)
    tables.load(fits)
    assert steered(tables, 0, fits, torch.ones(1, SIZE)).tolist() == [[5.0, 6.0, 7.0, 8.0]]
    assert steered(tables, 2, last, torch.ones(1, SIZE)).tolist() == [[1.0, 1.0, 1.0, 1.0]]


@pytest.mark.parametrize("here", [[0, 1], [2], []])
def test_a_pipeline_rank_has_the_tables_of_its_own_layers_and_the_slots_of_all(
    here: list[int], registry: Registry
) -> None:
    whole, rank = room_for_all(registry), tables_of({0: 2, 1: 7, 2: 3}, 2 + len(registry), here=here)
    for profile in registry.values():
        whole.load(profile)
        rank.load(profile)
    assert list(rank.layers) == here
    assert rank.slots == whole.slots
    for layer in here:
        assert torch.equal(rank.layers[layer].rows, whole.layers[layer].rows)
        assert torch.equal(rank.layers[layer].slots, whole.layers[layer].slots)


def test_a_rank_refuses_a_profile_whose_layer_is_armed_nowhere(coarse: Profile) -> None:
    with pytest.raises(StartupError, match="steers layer 2, which is not armed"):
        tables_of({0: 2}, 4, here=[0]).load(coarse)


def test_the_size_of_the_tables_is_told() -> None:
    tables = tables_of({0: 3, 2: 5}, 3)
    assert tables.nbytes == sum(table.rows.nbytes for table in tables.layers.values()) == 8 * SIZE * 4
