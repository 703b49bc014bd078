"""vLLM's own block hasher keeps steered blocks apart and shares all others."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core import block_pool, kv_cache_utils
from vllm.v1.request import Request

from tests.plugin import asked
from trimtab.plugin.requests import kv
from trimtab.plugin.requests.kv import WIRE_KEY
from trimtab.plugin.requests.request import Steering, choose, resolve
from trimtab.vectors import Registry
from trimtab.vectors.asked import Asked

BLOCK = 4
PROMPT = list(range(100, 122))  # five full blocks and a half


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    kv_cache_utils.init_none_hash(sha256)
    kv.install()


def image_at(offset: int, length: int, identifier: str) -> MultiModalFeatureSpec:
    place = PlaceholderRange(offset=offset, length=length)
    return MultiModalFeatureSpec(data=None, modality="image", identifier=identifier, mm_position=place)


def hashes(
    wire: object = None,
    *,
    tokens: list[int] = PROMPT,
    salt: str | None = None,
    images: tuple[MultiModalFeatureSpec, ...] = (),
) -> list[bytes]:
    request = Request(
        "r",
        tokens,
        SamplingParams(extra_args=None if wire is None else {WIRE_KEY: wire}),
        None,
        cache_salt=salt,
        mm_features=list(images),
        block_hasher=kv_cache_utils.get_request_block_hasher(BLOCK, sha256),
    )
    return list(request.block_hashes)


def wire_of(registry: Registry, name: str, alpha: float | None = None, prompt_length: int = len(PROMPT)) -> object:
    return resolve(choose([Asked(name, alpha)], registry), prompt_length=prompt_length).to_wire()


def shared(one: list[bytes], other: list[bytes]) -> list[bool]:
    return [a == b for a, b in zip(one, other, strict=True)]


def test_blocks_before_the_first_steered_position_are_shared_and_no_later_one(registry: Registry) -> None:
    for length in range(1, len(PROMPT) + 1):
        wire = wire_of(registry, "polite", prompt_length=length)
        block = (length - 1) // BLOCK
        assert shared(hashes(wire), hashes()) == [index < block for index in range(5)]


def test_nothing_is_shared_with_a_request_that_is_steered_everywhere(registry: Registry) -> None:
    assert shared(hashes(wire_of(registry, "gender-neutral")), hashes()) == [False] * 5


def test_everything_is_shared_where_only_the_last_layer_is_steered(registry: Registry) -> None:
    assert hashes(wire_of(registry, "brief", 2.0, 1)) == hashes()


def test_the_same_steering_shares_and_another_strength_or_profile_does_not(registry: Registry) -> None:
    steered = hashes(wire_of(registry, "polite", 1.0, 6))
    assert steered == hashes(wire_of(registry, "polite", 1.0, 6))
    assert shared(steered, hashes(wire_of(registry, "polite", 1.5, 6))) == [True] + [False] * 4
    assert shared(steered, hashes(wire_of(registry, "gender-neutral", 1.0, 6))) == [False] * 5


def test_a_steered_answer_is_not_taken_for_the_prompt_of_the_next_turn(registry: Registry) -> None:
    first_turn = hashes(wire_of(registry, "polite", 1.0, 10))
    second_turn = hashes(wire_of(registry, "polite", 1.0, len(PROMPT)))
    assert shared(first_turn, second_turn) == [True, True, False, False, False]


@settings(max_examples=60)
@given(one=asked.steerings(), other=asked.steerings())
def test_blocks_are_shared_exactly_while_the_steering_agrees(one: Steering, other: Steering) -> None:
    def steering_at(steering: Steering, position: int) -> list[str]:
        return sorted(str(part.kv_key) for part in steering.parts if asked.acts_at(part, position))

    agree = [steering_at(one, position) == steering_at(other, position) for position in range(len(PROMPT))]
    expected = [all(agree[: (block + 1) * BLOCK]) for block in range(5)]
    assert shared(hashes(one.to_wire()), hashes(other.to_wire())) == expected
    as_lists = json.loads(json.dumps(one.to_wire()))  # the scheduler's copy came over a wire
    assert hashes(as_lists) == hashes(one.to_wire())


def test_profiles_that_are_added_up_share_with_neither_alone(registry: Registry) -> None:
    def wire(*names: str) -> object:
        return resolve(choose([Asked(name) for name in names], registry), prompt_length=10).to_wire()

    both = hashes(wire("polite", "gender-neutral"))
    assert both == hashes(wire("gender-neutral", "polite"))
    assert both == hashes(wire("gender-neutral", "brief", "polite"))
    assert shared(both, hashes(wire("gender-neutral"))) == [True, True, False, False, False]  # until the answer
    assert shared(both, hashes(wire("polite"))) == [False] * 5


def test_kv_events_publish_one_key_per_profile(registry: Registry) -> None:
    """vLLM publishes of each extra key its second element: a key that held two profiles would lose one."""
    wire = resolve(choose([Asked(name) for name in ("polite", "gender-neutral")], registry), prompt_length=14).to_wire()
    request = Request("r", PROMPT, SamplingParams(extra_args={WIRE_KEY: wire}), None)
    keys, _ = kv_cache_utils.generate_block_hash_extra_keys(request, 12, 16, 0)
    published = (kv_cache_utils.to_event_extra_keys([keys]) or [None])[0]
    assert published is not None
    assert {key for key, _ in published} == {part["kv_key"] for part in wire}


def test_generated_blocks_inherit_the_key(registry: Registry) -> None:
    # The same tokens, whether they were all there at once or grew.
    wire = wire_of(registry, "polite", 1.0, 6)
    request = Request(
        "r",
        PROMPT[:6],
        SamplingParams(extra_args={WIRE_KEY: wire}),
        None,
        block_hasher=kv_cache_utils.get_request_block_hasher(BLOCK, sha256),
    )
    for token in PROMPT[6:]:
        request.append_output_token_ids(token)
    assert list(request.block_hashes) == hashes(wire)


def test_a_salt_and_steering_keep_apart_what_either_keeps_apart(registry: Registry) -> None:
    wire = wire_of(registry, "polite", 1.0, 6)
    kinds = [hashes(), hashes(salt="s"), hashes(wire), hashes(wire, salt="s"), hashes(wire, salt="t")]
    assert len({kind[-1] for kind in kinds}) == len(kinds)
    assert shared(hashes(wire, salt="s"), hashes(salt="s")) == [True] + [False] * 4
    everywhere = wire_of(registry, "gender-neutral")
    assert shared(hashes(everywhere, salt="s"), hashes(salt="s")) == [False] * 5
    assert shared(hashes(everywhere, salt="s"), hashes(everywhere)) == [False] * 5


def test_images_keep_their_own_keys_under_steering(registry: Registry) -> None:
    wire = wire_of(registry, "polite", 1.0, 14)
    cat, dog = image_at(10, 6, "cat"), image_at(10, 6, "dog")  # into the block of p0, which is 13
    assert shared(hashes(wire, images=(cat,)), hashes(images=(cat,))) == [True] * 3 + [False] * 2
    assert shared(hashes(wire, images=(cat,)), hashes(wire, images=(dog,))) == [True] * 2 + [False] * 3
    extra, after = kv_cache_utils.generate_block_hash_extra_keys(
        Request("r", PROMPT, SamplingParams(extra_args={WIRE_KEY: wire}), None, mm_features=[cat]), 12, 16, 0
    )
    plain, plain_after = kv_cache_utils.generate_block_hash_extra_keys(
        Request("r", PROMPT, SamplingParams(), None, mm_features=[cat]), 12, 16, 0
    )
    assert plain
    assert after == plain_after
    assert extra == (*plain, (WIRE_KEY, (wire[0]["kv_key"], ((1, 4),))))  # type: ignore[index]


def test_installing_again_is_harmless(registry: Registry) -> None:
    wire = wire_of(registry, "polite", 1.0, 6)
    hasher, before = kv_cache_utils.generate_block_hash_extra_keys, hashes(wire)
    kv.install()
    assert kv_cache_utils.generate_block_hash_extra_keys is hasher
    assert vars(block_pool)["generate_block_hash_extra_keys"] is hasher
    assert hashes(wire) == before
