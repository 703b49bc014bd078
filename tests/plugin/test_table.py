"""The tables hold every loaded profile's rows, are only written in place, and are never left half written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.plugin.conftest import SIZE
from trimtab.plugin.errors import StartupError
from trimtab.plugin.table import SteeringTables, TokenRows
from trimtab.vectors import ModelIdentity, Profile, Registry, SteeringVector

MODEL = ModelIdentity(architecture="LlamaForCausalLM", hidden_size=SIZE, num_layers=3)


def buffers(tables: SteeringTables) -> dict[str, torch.Tensor]:
    named = dict(tables.tokens.named_buffers(prefix="tokens"))
    for layer, table in tables.layers.items():
        named |= dict(table.named_buffers(prefix=str(layer)))
    return named


def room_for_all(registry: Registry) -> SteeringTables:
    return SteeringTables({0: 2, 1: 4, 2: 3}, 1 + len(registry), SIZE, 8)


def steered(tables: SteeringTables, layer: int, profile: Profile, h: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """What a layer adds to rows that are all steered by `profile`."""
    slot = np.full(len(h), tables.slots[profile.digest], np.int32)
    tables.tokens.write(slot, np.full(len(h), alpha, np.float32))
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


def test_loading_writes_in_place(registry: Registry) -> None:
    tables = room_for_all(registry)
    before = {name: (tensor.data_ptr(), tensor.shape) for name, tensor in buffers(tables).items()}
    for profile in registry.values():
        tables.load(profile)
    assert {name: (tensor.data_ptr(), tensor.shape) for name, tensor in buffers(tables).items()} == before


def test_all_tensors_are_buffers_that_no_checkpoint_names(registry: Registry) -> None:
    table = room_for_all(registry).layers[1]
    assert {name for name, _ in table.named_buffers()} == {
        *("centroids", "vectors", "bias", "start", "count"),
        *("tokens.slot", "tokens.alpha"),
    }
    assert not table.state_dict()


def test_the_tables_are_float32_under_a_models_own_default_dtype(registry: Registry, fine: Profile) -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        tables = room_for_all(registry)
        tables.load(fine)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in buffers(tables).values()} == {torch.float32, torch.int32}
    assert torch.equal(tables.layers[1].vectors[1:], torch.tensor(fine.tensors[1].named["vectors"]))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_the_rows_of_two_profiles_never_overlap_and_row_0_stays_zero(ks: list[int]) -> None:
    tables = SteeringTables({1: 1 + sum(ks)}, 1 + len(ks), SIZE, 8)
    profiles = []
    for index, k in enumerate(ks):
        rows = np.full((k, SIZE), index + 1.0)
        profiles.append(Profile.fine(f"p{index}", {1: (rows, rows)}, model=MODEL))
        tables.load(profiles[-1])
    table = tables.layers[1]
    taken: list[int] = []
    for index, profile in enumerate(profiles):
        slot = tables.slots[profile.digest]
        rows_taken = range(int(table.start[slot]), int(table.start[slot] + table.count[slot]))
        assert (table.vectors[list(rows_taken)] == index + 1).all()
        taken += rows_taken
    assert sorted(taken) == list(range(1, 1 + sum(ks)))
    assert not table.vectors[0].any()
    assert int(table.count[0]) == 0


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
        ({0: 2}, 3, r"'polite' steers layer 2, which is not armed \(armed: 0\); start with --steering-layers 2"),
        ({}, 3, r"steers layer 0, which is not armed \(armed: none\)"),
        ({0: 2, 2: 2}, 1, r"no slot is free for profile 'polite' \(there are 0\); start with a larger --steering-rows"),
        ({0: 1, 2: 2}, 3, r"'polite' needs 1 rows at layer 0 and 0 are free; start with a larger --steering-rows"),
        ({0: 2, 2: 1}, 3, r"'polite' needs 1 rows at layer 2 and 0 are free"),  # when layer 0 has room already
    ],
)
def test_a_profile_without_room_is_refused_and_nothing_is_written(
    rows: dict[int, int], slots: int, message: str, coarse: Profile
) -> None:
    tables = SteeringTables(rows, slots, SIZE, 8)
    with pytest.raises(StartupError, match=message):
        tables.load(coarse)
    assert not any(tensor.any() for tensor in buffers(tables).values())
    assert not tables.slots


def test_a_refused_profile_leaves_its_room_to_the_next(coarse: Profile, last: Profile) -> None:
    tables = SteeringTables({0: 2, 2: 2}, 3, SIZE, 8)
    tables.load(last)
    with pytest.raises(StartupError):
        tables.load(coarse)
    fits = Profile.coarse("fits", [SteeringVector(0, [5.0, 6.0, 7.0, 8.0])], model=MODEL)
    tables.load(fits)
    assert steered(tables, 0, fits, torch.ones(1, SIZE)).tolist() == [[5.0, 6.0, 7.0, 8.0]]
    assert steered(tables, 2, last, torch.ones(1, SIZE)).tolist() == [[1.0, 1.0, 1.0, 1.0]]


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=5))
def test_a_step_leaves_nothing_of_the_step_before(steps: list[list[int]]) -> None:
    rows = TokenRows(6)
    pointers = rows.slot.data_ptr(), rows.alpha.data_ptr()
    for slots in steps:
        rows.write(np.array(slots, np.int32), np.array([slot / 2 for slot in slots], np.float32))
        assert rows.slot.tolist() == slots + [0] * (6 - len(slots))
        acting = [alpha for slot, alpha in zip(rows.slot.tolist(), rows.alpha.tolist(), strict=True) if slot]
        assert acting == [slot / 2 for slot in slots if slot]
    assert (rows.slot.data_ptr(), rows.alpha.data_ptr()) == pointers


def test_the_size_of_the_tables_is_told() -> None:
    tables = SteeringTables({0: 3, 2: 5}, 2, SIZE, 8)
    assert tables.nbytes == sum(t.vectors.nbytes + t.centroids.nbytes for t in tables.layers.values()) == 8 * SIZE * 8
