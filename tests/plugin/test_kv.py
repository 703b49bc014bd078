"""A steered request shares exactly the blocks that hold what its own steering would have computed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.plugin.conftest import SIZE
from trimtab.plugin.kv import WIRE_KEY, acts_after_last_block_only, block_key, kv_key
from trimtab.plugin.request import Asked, resolve
from trimtab.vectors import ModelIdentity, Profile, Registry, SteeringVector

alphas = st.floats(-1000, 1000)
positions = st.integers(0, 10**6)


def at_layers(*layers: int, depth: int = 3) -> Profile:
    model = ModelIdentity(architecture="LlamaForCausalLM", hidden_size=SIZE, num_layers=depth)
    return Profile.coarse("p", [SteeringVector(layer, [1.0] * SIZE) for layer in layers], model=model)


@given(st.sets(st.integers(0, 3), min_size=1), alphas, positions)
def test_no_key_is_needed_exactly_where_only_the_last_layer_is_steered(
    layers: set[int], alpha: float, first: int
) -> None:
    profile = at_layers(*layers, depth=4)
    assert (kv_key(profile, alpha, first) is None) == (layers == {3}) == acts_after_last_block_only(profile)


@given(alphas, alphas, positions, positions)
def test_a_key_is_shared_exactly_by_the_same_strength_and_first_position(
    alpha: float, other_alpha: float, first: int, other_first: int
) -> None:
    profile = at_layers(0)
    same = (alpha.hex(), first) == (other_alpha.hex(), other_first)
    assert (kv_key(profile, alpha, first) == kv_key(profile, other_alpha, other_first)) == same


def test_neighbouring_strengths_have_keys_of_their_own() -> None:
    assert kv_key(at_layers(0), 0.1 + 0.2, 0) != kv_key(at_layers(0), 0.3, 0)


def test_other_vectors_layers_and_positions_have_keys_of_their_own(coarse: Profile) -> None:
    manifest = coarse.manifest
    everywhere = Profile(manifest.model_copy(update={"positions": "all"}), coarse.tensors)
    renamed = Profile(manifest.model_copy(update={"name": "kind", "description": "the same bits"}), coarse.tensors)
    keys = [kv_key(profile, 1.0, 5) for profile in (coarse, everywhere, at_layers(0), at_layers(1), at_layers(0, 1))]
    assert len(set(keys)) == len(keys)
    assert kv_key(renamed, 1.0, 5) == keys[0]


@given(st.integers(0, 40), st.integers(0, 12), st.integers(1, 16))
def test_only_the_block_that_holds_the_first_steered_position_gets_a_key(
    first: int, block: int, block_size: int
) -> None:
    extra_args = {WIRE_KEY: {"first": first, "kv_key": "k"}}
    found = block_key(extra_args, block * block_size, (block + 1) * block_size)
    assert found == ((WIRE_KEY, "k") if first // block_size == block else None)


def test_an_unsteered_request_and_one_that_changes_no_kv_get_no_key(registry: Registry) -> None:
    wire = resolve(Asked("brief"), registry, prompt_length=3).to_wire()
    for extra_args in (None, {}, {"other": 1}, {WIRE_KEY: wire}):
        assert all(block_key(extra_args, start, start + 4) is None for start in range(0, 20, 4))
