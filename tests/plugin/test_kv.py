"""A steered request shares exactly the blocks that hold what its own steering would have computed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.plugin import asked
from tests.plugin.conftest import SIZE
from trimtab.plugin.requests.kv import WIRE_KEY, block_keys, changes_no_kv, kv_key
from trimtab.plugin.requests.request import Part, Steering, choose, resolve
from trimtab.vectors import Gate, ModelIdentity, Profile, Registry, SteeringVector
from trimtab.vectors.asked import Asked

alphas = st.floats(-1000, 1000)
BLOCK = 4
BLOCKS = 5


def at_layers(*layers: int, depth: int = 3) -> Profile:
    model = ModelIdentity(architecture="LlamaForCausalLM", hidden_size=SIZE, num_layers=depth)
    return Profile.coarse("p", [SteeringVector(layer, [1.0] * SIZE) for layer in layers], model=model)


@given(st.sets(st.integers(0, 3), min_size=1), alphas)
def test_no_key_is_needed_exactly_where_only_the_last_layer_is_steered(layers: set[int], alpha: float) -> None:
    profile = at_layers(*layers, depth=4)
    assert (kv_key(profile, alpha) is None) == (layers == {3}) == changes_no_kv(profile)


@given(st.sets(st.integers(0, 3), min_size=1), alphas)
def test_a_profile_that_adds_nothing_anywhere_shares_every_block(layers: set[int], alpha: float) -> None:
    model = ModelIdentity(architecture="LlamaForCausalLM", hidden_size=SIZE, num_layers=4)
    zeros = np.zeros((2, SIZE))
    watching = {layer: (np.eye(2, SIZE), zeros) for layer in layers}
    assert kv_key(Profile.fine("watch", watching, model=model), alpha) is None
    one = {**watching, 0: (np.eye(2, SIZE), zeros + np.float32(1e-30))}
    assert kv_key(Profile.fine("steer", one, model=model), alpha) is not None


@given(alphas, alphas)
def test_a_key_is_shared_exactly_by_the_same_strength(alpha: float, other: float) -> None:
    profile = at_layers(0)
    assert (kv_key(profile, alpha) == kv_key(profile, other)) == (alpha.hex() == other.hex())


def test_neighbouring_strengths_have_keys_of_their_own() -> None:
    assert kv_key(at_layers(0), 0.1 + 0.2) != kv_key(at_layers(0), 0.3)


def test_other_vectors_layers_positions_and_gates_have_keys_of_their_own(
    coarse: Profile, fine: Profile, model: ModelIdentity
) -> None:
    manifest = coarse.manifest
    everywhere = Profile(manifest.model_copy(update={"positions": "all"}), coarse.tensors)
    renamed = Profile(manifest.model_copy(update={"name": "kind", "description": "the same bits"}), coarse.tensors)
    rows = np.eye(2, SIZE)
    gates = [Gate(), Gate(scope="sequence"), Gate(max_distance=1.0), Gate(metric="cosine", max_distance=1.0)]
    gated = [Profile.fine("p", {0: (rows, rows)}, model=model, gate=gate) for gate in gates]
    profiles = (coarse, fine, everywhere, at_layers(0), at_layers(1), at_layers(0, 1), *gated)
    keys = [kv_key(profile, 1.0) for profile in profiles]
    assert len(set(keys)) == len(keys)
    assert kv_key(renamed, 1.0) == keys[0]


def blocks_of(steering: Steering) -> list[tuple[Any, ...] | None]:
    extra_args = {WIRE_KEY: steering.to_wire()}
    return [block_keys(extra_args, index * BLOCK, (index + 1) * BLOCK) for index in range(BLOCKS)]


def steering_at(steering: Steering, position: int) -> list[str]:
    acting = [one.kv_key for one in steering.parts if asked.acts_at(one, position)]
    return sorted(key for key in acting if key is not None)


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[Steering, Steering]:
    """Two requests whose steering is made of the same few things, so that it often agrees for a while."""
    keyed = st.builds(Part, st.just("d"), st.just(1.0), asked.spans, st.none() | st.sampled_from("kl"), st.just(False))
    few = draw(st.lists(keyed, min_size=1, max_size=3))

    def one() -> Steering:
        chosen = draw(st.lists(st.sampled_from(few), min_size=1, max_size=4, unique_by=lambda part: part.kv_key))
        return Steering(tuple(chosen))

    return one(), one()


@given(neighbours())
def test_two_requests_have_the_same_keys_up_to_a_block_exactly_when_their_steering_agrees_up_to_its_end(
    pair: tuple[Steering, Steering],
) -> None:
    one, other = map(blocks_of, pair)
    for blocks in range(BLOCKS + 1):
        agree = all(steering_at(pair[0], p) == steering_at(pair[1], p) for p in range(blocks * BLOCK))
        assert (one[:blocks] == other[:blocks]) == agree


@given(neighbours())
def test_a_block_without_steered_positions_has_no_key(pair: tuple[Steering, Steering]) -> None:
    for index, key in enumerate(blocks_of(pair[0])):
        steered = any(steering_at(pair[0], position) for position in range(index * BLOCK, (index + 1) * BLOCK))
        assert bool(key) == steered


@given(neighbours(), st.permutations(range(4)))
def test_the_order_of_the_parts_does_not_matter(pair: tuple[Steering, Steering], order: list[int]) -> None:
    parts = pair[0].parts
    permuted = Steering(tuple(parts[index] for index in order if index < len(parts)))
    assert blocks_of(permuted) == blocks_of(pair[0])


def test_a_part_after_the_last_layer_changes_no_key(registry: Registry) -> None:
    both = resolve(choose([Asked("brief"), Asked("polite")], registry), prompt_length=3)
    assert blocks_of(both) == blocks_of(resolve(choose([Asked("polite")], registry), prompt_length=3))


def test_an_unsteered_request_and_one_that_changes_no_kv_get_no_key(registry: Registry) -> None:
    wire = resolve(choose([Asked("brief")], registry), prompt_length=3).to_wire()
    for extra_args in (None, {}, {"other": 1}, {WIRE_KEY: wire}):
        assert all(block_keys(extra_args, start, start + 4) == () for start in range(0, 20, 4))
