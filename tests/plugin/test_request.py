"""What a request gets for what it asks, and the sentence that answers what cannot be had."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.plugin.requests.positions import END
from trimtab.plugin.requests.request import Part, Steering, choose, resolve
from trimtab.vectors import Gate, ModelIdentity, Profile, Registry, SteeringVector
from trimtab.vectors.asked import Asked
from trimtab.vectors.errors import AlphaError, RequestError, UnknownProfileError

words = st.sampled_from(["profile", "alpha", "none", "polite", "brief", "steering", ""]) | st.text(max_size=5)
jsonlike = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(asked=st.lists(st.builds(Asked, words, jsonlike), max_size=4))
def test_every_wish_is_registered_profiles_in_their_ranges_or_a_request_error(
    asked: list[Asked], registry: Registry
) -> None:
    try:
        chosen = choose(asked, registry)
    except (UnknownProfileError, AlphaError):
        return
    assert [profile.name for profile, _ in chosen] == [one.profile for one in asked]
    for profile, alpha in chosen:
        assert profile.manifest.alpha.min <= alpha <= profile.manifest.alpha.max


def test_the_strength_is_the_profiles_default_unless_one_is_asked_for(registry: Registry, coarse: Profile) -> None:
    assert choose([Asked("polite")], registry) == [(coarse, 0.5)]
    assert choose([Asked("polite", 0)], registry) == [(coarse, 0.0)]
    assert choose([Asked("polite", -1)], registry) == [(coarse, -1.0)]


@pytest.mark.parametrize("alpha", [2.01, -1.01, float("nan"), float("inf"), True, "1", [1], {}, 10**400])
def test_a_strength_that_is_no_number_in_range_is_refused(alpha: object, registry: Registry) -> None:
    with pytest.raises(AlphaError, match=r"allowed is a number from -1 to 2|must be a number from -1 to 2") as caught:
        choose([Asked("brief"), Asked("polite", alpha)], registry)
    assert caught.value.param == "steering.alpha"


def test_an_unknown_profile_is_refused_with_the_nearest_name(registry: Registry) -> None:
    with pytest.raises(UnknownProfileError, match=r"'pollite'; did you mean 'polite'\?") as caught:
        choose([Asked("pollite")], registry)
    assert caught.value.param == "steering.profile"


def test_a_version_of_a_profile_is_served_where_it_is_the_loaded_one(registry: Registry, coarse: Profile) -> None:
    for digits in (coarse.digest[:12], coarse.digest):
        assert choose([Asked("polite", 1, digits)], registry) == [(coarse, 1.0)]
    other = registry["brief"].digest[:12]
    with pytest.raises(
        RequestError, match=rf"{other} of profile 'polite' is not loaded; loaded is .*{coarse.digest[:12]}"
    ):
        choose([Asked("polite", version=other)], registry)


def test_a_server_without_profiles_says_so() -> None:
    with pytest.raises(RequestError, match=r"started without steering profiles.*--steering-profiles DIR") as caught:
        resolve(choose([Asked("polite")], None), prompt_length=3)
    assert caught.value.param == "steering"


@given(length=st.integers(1, 10**6))
def test_answer_begins_at_the_last_prompt_position_and_all_at_the_first(length: int, registry: Registry) -> None:
    for name, first in (("polite", length - 1), ("gender-neutral", 0)):
        (part,) = resolve(choose([Asked(name)], registry), prompt_length=length).parts
        assert part.spans == ((first, END),)


def test_each_part_tells_its_profile_and_strength(registry: Registry, coarse: Profile, fine: Profile) -> None:
    parts = resolve(choose([Asked("polite", 1.25), Asked("gender-neutral")], registry), prompt_length=7).parts
    assert {(part.digest, part.alpha) for part in parts} == {(coarse.digest, 1.25), (fine.digest, 1.0)}
    assert not any(part.once for part in parts)


@given(order=st.permutations(["polite", "gender-neutral", "brief"]))
def test_the_order_of_a_wish_does_not_matter(order: list[str], registry: Registry) -> None:
    steering = resolve(choose([Asked(name) for name in order], registry), prompt_length=7)
    assert steering == resolve(choose([Asked(name) for name in sorted(order)], registry), prompt_length=7)
    assert [part.digest for part in steering.parts] == sorted(part.digest for part in steering.parts)


def profile_for(model: ModelIdentity, **manifest: Any) -> Registry:
    return Registry([Profile.coarse("p", [SteeringVector(0, [1.0] * 4)], model=model, **manifest)])


@pytest.mark.parametrize(
    ("positions", "spans"),
    [
        ("answer", ((9, END),)),
        ("prompt", ((0, 9),)),
        ("all", ((0, END),)),
        ("image", ((2, 4), (6, 8))),
        ("text", ((0, 2), (4, 6), (8, 10))),
    ],
)
def test_the_spans_follow_the_prompt_and_its_pictures(
    positions: Any, spans: tuple[tuple[int, int], ...], model: ModelIdentity
) -> None:
    registry = profile_for(model, positions=positions)
    (part,) = resolve(choose([Asked("p")], registry), prompt_length=10, pictures=((2, 4), (6, 8))).parts
    assert part.spans == spans


@pytest.mark.parametrize(
    ("positions", "length", "way_out"),
    [
        ("image", 9, "send it with a picture"),
        ("prompt", 1, "send a longer prompt"),
        ("text", 2, "send a longer prompt"),
    ],
)
def test_positions_that_a_prompt_has_none_of_are_refused(
    positions: Any, length: int, way_out: str, model: ModelIdentity
) -> None:
    pictures = ((0, 2),) if positions == "text" else ()
    with pytest.raises(RequestError, match=f"steers positions '{positions}', and this prompt has none; {way_out}"):
        resolve(choose([Asked("p")], profile_for(model, positions=positions)), prompt_length=length, pictures=pictures)


@pytest.mark.parametrize(("scope", "once"), [("sequence", True), ("token", False)])
def test_a_gate_for_the_sequence_decides_once(scope: Any, once: bool, model: ModelIdentity) -> None:
    rows = np.eye(2, 4)
    profile = Profile.fine("p", {0: (rows, rows)}, model=model, gate=Gate(scope=scope))
    (part,) = resolve(choose([Asked("p")], Registry([profile])), prompt_length=3).parts
    assert part.once is once


spans = st.lists(st.tuples(st.integers(0, 99), st.integers(0, END)), min_size=1, max_size=3).map(tuple)
parts = st.builds(Part, st.text(max_size=3), st.floats(allow_nan=False), spans, st.none() | st.text(), st.booleans())


@given(steering=st.builds(Steering, st.lists(parts, min_size=1, max_size=4).map(tuple)))
def test_what_is_resolved_survives_the_wire(steering: Steering) -> None:
    as_lists = json.loads(json.dumps(steering.to_wire()))  # as msgpack does, too: tuples arrive as lists
    assert Steering.of_wire(as_lists) == steering
    assert pickle.loads(pickle.dumps(steering)) == steering
